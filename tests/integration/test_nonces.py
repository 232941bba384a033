"""
No (key, nonce) pair occurs twice, however many writers there are and wherever they end.

Every place that encrypts is recorded where it asks the cipher. Of processes that were killed only
what they left can be looked at: there each object's header says under which key it was sealed.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from kryonix_backup.backup.run import back_up_source, begin
from kryonix_backup.crypto import keyring, seal
from kryonix_backup.crypto.keys import KeyState, Purpose
from kryonix_backup.crypto.seal import HEADER_BYTES, Header, Kind
from kryonix_backup.crypto.stores import escrow, root
from kryonix_backup.crypto.stores.escrow import split
from kryonix_backup.errors import Damaged, KryonixError, StoreUnavailable
from kryonix_backup.events import quiet
from kryonix_backup.maintenance.key_care import KeyCare
from kryonix_backup.model import MIB, BackupKind, ChainId, LogHeader, SourceName, new_run_id
from kryonix_backup.repository.repository import Repository
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import (
    ACME,
    RecordingStore,
    key_file,
    new_repository,
    reopened,
    settings_of,
)
from kryonix_backup.testing.sources import MemorySource, Thing

MODULES = (seal, keyring, root, escrow)


class Sealings:
    """Every (key, nonce) that anything was encrypted under, and the most bytes at once."""

    def __init__(self) -> None:
        self.pairs: Counter[tuple[bytes, bytes]] = Counter()
        self.longest = 0
        self._lock = threading.Lock()

    def note(self, key: bytes, nonce: bytes, size: int) -> None:
        with self._lock:
            self.pairs[key, nonce] += 1
            self.longest = max(self.longest, size)

    def twice(self) -> list[tuple[bytes, bytes]]:
        return [pair for pair, count in self.pairs.items() if count > 1]


@contextmanager
def recorded() -> Iterator[Sealings]:
    """Note what every cipher is asked to encrypt with while the block runs."""
    found = Sealings()

    class Recorder:
        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = bytes(key), AESGCM(key)
            self.decrypt = self._cipher.decrypt

        def encrypt(self, nonce: bytes, plain: Any, bound: Any) -> bytes:
            found.note(self._key, bytes(nonce), len(plain))
            return self._cipher.encrypt(nonce, plain, bound)

        def encrypt_into(self, nonce: bytes, plain: Any, bound: Any, out: Any) -> int:
            found.note(self._key, bytes(nonce), len(plain))
            return self._cipher.encrypt_into(nonce, plain, bound, out)

    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "AESGCM", Recorder)
        yield found


def test_every_module_that_encrypts_is_recorded() -> None:
    package = Path(seal.__file__).parents[1]
    using = {
        path.stem for path in package.rglob("*.py") if "aead import AESGCM" in path.read_text()
    }

    assert using == {module.__name__.rpartition(".")[2] for module in MODULES}


def _back_up(store: RecordingStore, seed: int, crash: int | None) -> None:
    """A backup of random files, some of which all writers share; cut off after so many objects."""
    chance = random.Random(seed)
    things = {b"%d" % n: Thing(random.Random(n % 3 + seed % 2).randbytes(3000)) for n in range(4)}
    things[b"big"] = Thing(chance.randbytes(200_000))
    gone = StoreUnavailable("cut off")
    faults = [] if crash is None else [None] * crash + [gone] * 99
    with suppress(KryonixError):
        repository = Repository.open(FaultyStore(store, put=faults), ACME, key_file())
        session = begin(repository, BackupKind.FULL, FixedClock())
        source = settings_of("files", compression="store").sources[0]
        back_up_source(repository, session, source, MemorySource(things), quiet, FixedClock())
        book = repository.log(SourceName("db"))
        chain = ChainId(new_run_id(FixedClock().now()))
        for number in range(2):
            book.append(_segment(chain, number), chance.randbytes(200))


def _segment(chain: ChainId, number: int) -> LogHeader:
    now = FixedClock().now()
    empty: dict[str, Any] = dict.fromkeys(LogHeader._fields)
    known = {"chain": chain, "number": number, "first": now, "last": now, "meta": {}}
    return LogHeader(**(empty | known))


def _care(store: RecordingStore) -> KeyCare:
    return KeyCare(ACME, [store], key_file(), FixedClock())


def _reseal(store: RecordingStore, crash: int | None) -> None:
    care = _care(store)
    sealing = reopened(store)._keys.current.id
    care.set_state(sealing, KeyState.COMPROMISED)
    for cut in (crash, None):
        faults = [] if cut is None else [None] * cut + [StoreUnavailable("cut off")] * 99
        with suppress(StoreUnavailable):
            opened = Repository.open(
                FaultyStore(store, put=faults, replace=faults), ACME, key_file()
            )
            resealer = opened.resealer()
            list(resealer.reseal(resealer.sealed_by(sealing)))
    care.destroy_data_key(sealing)


CRASHES = st.none() | st.integers(0, 6)
ROUNDS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 9), CRASHES), min_size=1, max_size=4),
        st.sampled_from(["nothing", "epoch", "master", "escrow", "reseal", "archive"]),
        CRASHES,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=12)
@given(rounds=ROUNDS)
def test_concurrent_and_crashed_writers_never_use_a_pair_twice(
    rounds: list[tuple[list[tuple[int, int | None]], str, int | None]],
) -> None:
    with recorded() as sealings:
        store = RecordingStore()
        new_repository(store)
        for writers, change, crash in rounds:
            threads = [threading.Thread(target=_back_up, args=(store, *each)) for each in writers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if change in ("epoch", "archive"):
                _care(store).rotate(Purpose.DATA if change == "epoch" else Purpose.ARCHIVE)
            elif change == "master":
                _care(store).rotate_master(key_file())
            elif change == "escrow":
                recipient, _, sender = split(2, 3)
                _care(store).set_escrow(recipient, sender)
            elif change == "reseal":
                _reseal(store, crash)

    assert sum(sealings.pairs.values()) > 2
    assert sealings.twice() == []
    assert sealings.longest < MIB
    _assert_keys_of_their_own(store.objects)


def _assert_keys_of_their_own(objects: dict[str, bytes]) -> int:
    """
    No two objects were sealed under one key: it comes from the data key, the salt and the name.

    A file that a kill left half written, or under two names, is the same object.
    """
    bodies: dict[tuple[str, bytes], set[bytes]] = {}
    for name, body in objects.items():
        header = _header((name, body))
        if header is not None:
            bodies.setdefault((header.key_id, header.salt), set()).add(body)
    for same in bodies.values():
        whole = max(same, key=len)
        assert all(whole.startswith(body) for body in same)
    return len(bodies)


def _header(item: tuple[str, bytes]) -> Header | None:
    name, body = item
    try:
        return Header.from_bytes(body[:HEADER_BYTES], name)
    except Damaged:
        return None


KILLED = """
import random, sys
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.testing.repositories import reopened
chance = random.Random(int(sys.argv[2]))
repository = reopened(FilesystemStore(sys.argv[1]))
print("ready", flush=True)
while True:
    with repository.writer() as writer:
        lane = writer.lane("store")
        for number in range(40):
            lane.keep([chance.randbytes(500_000)])
"""


def _packs(root: Path) -> int:
    return sum(1 for _ in root.glob("packs/*/*"))


def test_what_killed_processes_leave_was_sealed_under_keys_of_their_own(tmp_path: Path) -> None:
    new_repository(FilesystemStore(tmp_path))
    chance = random.Random(4)
    for seed in range(2):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", KILLED, str(tmp_path), str(seed)],  # all write the same
                stdout=subprocess.PIPE,
            )
            for _ in range(3)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        before = _packs(tmp_path)
        deadline = time.monotonic() + 60
        while _packs(tmp_path) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.random() / 10)
        for child in children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()

    left = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert _assert_keys_of_their_own(left) > 1
    kinds = {header.kind for header in map(_header, left.items()) if header}
    assert Kind.DATA_PACK in kinds
    reopened(FilesystemStore(tmp_path)).writer()
