"""What is sealed opens unchanged, in its own place, and nowhere else."""

from __future__ import annotations

import pickle
import struct
import threading
from collections import Counter
from mmap import mmap
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis.strategies import binary

from kryonix_backup.crypto import seal
from kryonix_backup.crypto.keys import KeyRecord, Purpose, TenantKeys
from kryonix_backup.crypto.seal import (
    HEADER_BYTES,
    Header,
    Kind,
    Sealer,
    new_header,
    open_object,
    seal_object,
)
from kryonix_backup.errors import Damaged, FormatUnsupported
from kryonix_backup.model import KIB, KeyId, RepositoryId
from kryonix_backup.repository.codec import Codec
from kryonix_backup.repository.pack import PackWriter
from kryonix_backup.settings import Secret
from kryonix_backup.testing.clock import NOON

REPOSITORY = RepositoryId("0123456789abcdef" * 2)
KEY_ID = KeyId(bytes(range(16)).hex())
SALT = bytes(range(100, 132))
NAME = "snapshots/x"


def _keys(data_key: bytes = bytes(range(32)), key_id: KeyId = KEY_ID) -> TenantKeys:
    return TenantKeys(
        [
            KeyRecord(key_id, Purpose.DATA, 1, NOON, Secret(data_key)),
            KeyRecord(KeyId("ff" * 16), Purpose.ID, 1, NOON, Secret(bytes(range(32, 64)))),
        ]
    )


KEYS = _keys()

# Computed once by `cryptography` alone, from the format as docs/format.md has it: HKDF-SHA-256 of
# the data key 00..1f with the salt 64..83, nonces that are offsets. They never change in format 1.
HEADER = (
    "4b52595801040000000102030405060708090a0b0c0d0e0f"
    "6465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283"
)
SEALED_SNAPSHOT = "4e30c55252d2e2276091cee5b7c5a720fe3308e5147f86"
SEALED_FRAME = "ab761dc5c00f35686ab1f5a3840c6dfae2d6841cb35467"
SEALED_DIRECTORY = "e0a6b83ca6e9a1684c340bf00c7cee803f7bd10fd19822"


def _sealed(kind: Kind, name: str, place: int, extra: bytes) -> str:
    out = bytearray(7 + 16)
    sealer = Sealer(Header(kind, KEY_ID, SALT), KEYS, REPOSITORY, name)
    sealer.seal_into(place, extra, b"kryonix", memoryview(out))
    return out.hex()


def test_the_header_has_its_known_form() -> None:
    assert Header(Kind.SNAPSHOT, KEY_ID, SALT).to_bytes().hex() == HEADER
    assert HEADER_BYTES == 56


def test_keys_nonces_and_bound_data_have_their_known_answers() -> None:
    assert _sealed(Kind.SNAPSHOT, NAME, HEADER_BYTES, b"") == SEALED_SNAPSHOT
    assert _sealed(Kind.DATA_PACK, "pack", 56, struct.pack(">BI", 0, 7)) == SEALED_FRAME
    assert _sealed(Kind.DATA_PACK, "pack", 79, b"directory") == SEALED_DIRECTORY


def test_a_stored_object_of_format_1_opens() -> None:
    stored = bytes.fromhex(HEADER + SEALED_SNAPSHOT)

    assert open_object(Kind.SNAPSHOT, NAME, stored, KEYS, REPOSITORY) == b"kryonix"


@given(plain=binary(max_size=200))
def test_what_is_sealed_opens_unchanged(plain: bytes) -> None:
    sealed = seal_object(Kind.INDEX, "index/1", plain, KEYS, REPOSITORY)

    assert len(sealed) == len(plain) + HEADER_BYTES + 16
    assert open_object(Kind.INDEX, "index/1", sealed, KEYS, REPOSITORY) == plain


def test_every_changed_byte_is_noticed_and_the_object_is_named() -> None:
    sealed = seal_object(Kind.SNAPSHOT, NAME, b"a manifest", KEYS, REPOSITORY)

    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises((Damaged, FormatUnsupported), match=NAME):
            open_object(Kind.SNAPSHOT, NAME, changed, KEYS, REPOSITORY)


def test_every_cut_is_noticed() -> None:
    sealed = seal_object(Kind.SNAPSHOT, NAME, b"a manifest", KEYS, REPOSITORY)

    for length in range(len(sealed)):
        with pytest.raises(Damaged, match=NAME):
            open_object(Kind.SNAPSHOT, NAME, sealed[:length], KEYS, REPOSITORY)
    with pytest.raises(Damaged, match=NAME):
        open_object(Kind.SNAPSHOT, NAME, sealed + b"\0", KEYS, REPOSITORY)


@pytest.mark.parametrize(
    ("kind", "name", "repository"),
    [
        (Kind.SNAPSHOT, "snapshots/y", REPOSITORY),
        (Kind.SNAPSHOT, NAME, RepositoryId("f" * 32)),
        (Kind.INTENT, NAME, REPOSITORY),
    ],
)
def test_an_object_opens_only_where_it_was_sealed_for(
    kind: Kind, name: str, repository: RepositoryId
) -> None:
    sealed = seal_object(Kind.SNAPSHOT, NAME, b"a manifest", KEYS, REPOSITORY)

    with pytest.raises(Damaged, match=name):
        open_object(kind, name, sealed, KEYS, repository)


def test_an_object_relabelled_as_another_kind_does_not_open() -> None:
    relabelled = bytearray(seal_object(Kind.SNAPSHOT, NAME, b"x", KEYS, REPOSITORY))
    relabelled[5] = Kind.INTENT

    with pytest.raises(Damaged):
        open_object(Kind.INTENT, NAME, relabelled, KEYS, REPOSITORY)


def test_another_tenants_object_does_not_open() -> None:
    theirs = seal_object(Kind.SNAPSHOT, NAME, b"x", _keys(b"\1" * 32), REPOSITORY)
    other_id = seal_object(Kind.SNAPSHOT, NAME, b"x", _keys(key_id=KeyId("aa" * 16)), REPOSITORY)

    with pytest.raises(Damaged):
        open_object(Kind.SNAPSHOT, NAME, theirs, KEYS, REPOSITORY)
    with pytest.raises(Damaged, match="aa" * 16):
        open_object(Kind.SNAPSHOT, NAME, other_id, KEYS, REPOSITORY)


class _Recorder:
    """The cipher itself, which also notes every (key, nonce) pair that it seals under."""

    pairs: ClassVar[Counter[tuple[bytes, bytes]]] = Counter()

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher = AESGCM(key)
        self.decrypt = self._cipher.decrypt

    def encrypt_into(self, nonce: bytes, plain: bytes, bound: bytes, out: memoryview) -> int:
        self.pairs[self._key, nonce] += 1
        return self._cipher.encrypt_into(nonce, plain, bound, out)


def test_no_nonce_is_used_twice_under_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "AESGCM", _Recorder)
    _Recorder.pairs.clear()

    def work() -> None:
        buffer = mmap(-1, 64 * KIB)  # every pack is made in the same buffer, as in a backup
        for number in range(40):
            writer = PackWriter(Kind.DATA_PACK, buffer, KEYS, REPOSITORY)
            for frame in range(number % 5):
                writer.add(Codec.STORE, bytes(frame), frame, [])
            writer.close()
            seal_object(Kind.INDEX, "index/1", b"same", KEYS, REPOSITORY)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(_Recorder.pairs.values()) == 4 * (40 * 2 + 8 * (0 + 1 + 2 + 3 + 4))
    assert max(_Recorder.pairs.values()) == 1


def test_every_header_has_a_salt_of_its_own() -> None:
    assert len({new_header(Kind.INDEX, KEYS).salt for _ in range(1000)}) == 1000


def test_a_sealer_neither_prints_nor_pickles_its_key() -> None:
    sealer = Sealer(Header(Kind.INDEX, KEY_ID, SALT), KEYS, REPOSITORY, "index/1")

    assert bytes(range(32)).hex() not in repr(sealer) + repr(vars(sealer))
    with pytest.raises(TypeError):
        pickle.dumps(sealer)
