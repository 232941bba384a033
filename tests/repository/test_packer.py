"""Threads fill one pack at once; what failed its check is never sent; memory is bounded."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from mmap import mmap

import pytest

from kryonix_backup.crypto.seal import Kind
from kryonix_backup.errors import Damaged
from kryonix_backup.model import KIB, MIB, Blob, ChunkId
from kryonix_backup.repository.codec import Codec
from kryonix_backup.repository.pack import ClosedPack, parse_directory
from kryonix_backup.repository.packer import Packer, Sealed
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened


class Desk:
    """Takes closed packs; gives their buffers back at once, or when it is told to."""

    def __init__(self, *, waits: bool = False) -> None:
        self.repository = new_repository()
        self.sent: list[bytes] = []
        self.buffers: set[int] = set()
        self.failed = False
        self._waits = waits
        self._held: list[tuple[Packer, mmap]] = []
        self._lock = threading.Lock()
        keys = self.repository._keys
        self.packer = Packer(Kind.DATA_PACK, keys, self.repository.id, 1, self.take, self.check)

    def take(self, packer: Packer, pack: ClosedPack) -> None:
        buffer = pack.body.obj
        assert isinstance(buffer, mmap)
        with self._lock:
            self.sent.append(bytes(pack.body))
            self.buffers.add(id(buffer))
        pack.body.release()
        if self._waits:
            self._held.append((packer, buffer))
        else:
            packer.give_back(buffer)

    def let_go(self) -> None:
        self._waits = False
        while self._held:
            packer, buffer = self._held.pop()
            packer.give_back(buffer)

    def check(self) -> None:
        if self.failed:
            raise Damaged("the run failed elsewhere")

    def chunks(self) -> list[ChunkId]:
        """The ids in every pack that was sent."""
        return [
            chunk
            for body in self.sent
            for chunk, _ in parse_directory(
                memoryview(body), "a pack", self.repository._keys, self.repository.id
            )
        ]


def _sealed(data: bytes, number: int) -> Sealed:
    chunk = ChunkId(number.to_bytes(32))
    return Sealed(Codec.STORE, data, len(data), [(chunk, len(data))])


def _same(data: bytes, raw: Blob) -> None:
    if bytes(raw) != data:
        raise Damaged("a frame came out different")


@pytest.fixture
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_quick_switches")
def test_threads_share_packs_and_every_frame_opens_again() -> None:
    desk = Desk()
    chance = random.Random(4)
    data = [chance.randbytes(chance.randrange(1, 600 * KIB)) for _ in range(160)]

    def work(numbers: Sequence[int]) -> None:
        for number in numbers:
            each = data[number]
            desk.packer.add(_sealed(each, number), partial(_same, each))

    threads = [threading.Thread(target=work, args=(range(at, 160, 8),)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.packer.close()

    assert sorted(desk.chunks()) == [number.to_bytes(32) for number in range(160)]
    assert len(desk.sent) >= 2
    assert len(desk.buffers) <= 2


def test_a_pack_with_a_frame_that_failed_its_check_is_never_sent() -> None:
    desk = Desk()

    def refuse(_raw: Blob) -> None:
        raise Damaged("a frame came out different")

    with pytest.raises(Damaged):
        desk.packer.add(_sealed(b"spoiled", 0), refuse)
    data = bytes(MIB)
    for number in range(1, 17):  # fills the pack that the spoiled frame is in
        desk.packer.add(_sealed(data, number), None)

    assert desk.sent == []


def test_filling_waits_for_the_buffers_that_are_being_stored() -> None:
    desk = Desk(waits=True)
    added: list[int] = []

    def work() -> None:
        for number in range(50):
            desk.packer.add(_sealed(bytes(MIB), number), None)
            added.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(1.0)
    waiting = len(added)
    desk.let_go()
    thread.join(20)
    desk.packer.close()

    assert waiting <= 33  # two packs of 16 MiB, and one frame that found no room
    assert len(desk.buffers) <= 2
    assert len(desk.chunks()) == 50


def test_a_failure_elsewhere_ends_the_waiting() -> None:
    desk = Desk(waits=True)
    desk.failed = True

    def fill() -> None:
        for number in range(50):
            desk.packer.add(_sealed(bytes(MIB), number), None)

    with pytest.raises(Damaged, match="elsewhere"):
        fill()


def test_a_slow_store_bounds_the_packs_in_flight() -> None:
    """One being stored for each upload at once, and one being filled."""
    going = threading.Event()
    uploads: list[str] = []

    class Slow(RecordingStore):
        """Waits in every upload of a pack."""

        def put(self, name: str, body: Blob) -> None:
            if name.startswith("packs/"):
                uploads.append(name)
                going.wait(20)
            super().put(name, body)

    repository = new_repository(Slow())
    at_once = repository.store.parallel
    chance = random.Random(2)
    kept: list[int] = []

    def run() -> None:
        with repository.writer() as writer:
            lane = writer.lane("store")
            for number in range(100):
                lane.keep([chance.randbytes(MIB)])
                kept.append(number)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(2.0)
    waiting = len(uploads), len(kept)
    going.set()
    thread.join(20)

    assert waiting[0] == at_once
    assert waiting[1] <= 17 * (at_once + 1)
    assert len(reopened(repository.store).load_index()) == 100


def test_faults_in_storing_reach_the_caller() -> None:
    inner = RecordingStore()
    new_repository(inner)
    store = FaultyStore(inner, put=[Damaged("the first upload fails")])

    with pytest.raises(Damaged, match="first upload"), reopened(store).writer() as writer:
        writer.lane("store").keep([b"content"])

    store.assert_all_faults_fired()
    assert not inner.names("index/")
