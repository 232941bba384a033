"""Each chunk is kept once; what is not durable is never counted; the first failure is told."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from threading import Barrier

import pytest

from kryonix_backup.crypto.seal import Kind
from kryonix_backup.errors import Damaged, StoreFull, StoreUnavailable
from kryonix_backup.model import KIB, MIB, Blob
from kryonix_backup.repository import packer
from kryonix_backup.repository import writer as writer_module
from kryonix_backup.repository.codec import Codec
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.writer import Counts, Lane
from kryonix_backup.testing.faults import AnswerLost, FaultyStore
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened


def _chunks(count: int, size: int = 1000, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(size) for _ in range(count)]


def _keep(repository: Repository, chunks: Sequence[bytes], batch: int = 10) -> Counts:
    with repository.writer() as writer:
        lane = writer.lane("store")
        for at in range(0, len(chunks), batch):
            lane.keep(chunks[at : at + batch])
    return writer.counts


def _read_all(repository: Repository, chunks: Sequence[bytes]) -> bool:
    reader = repository.reader()
    return all(reader.read(repository.namer(chunk)) == chunk for chunk in chunks)


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _no_uploaders_left() -> bool:
    return not [each for each in threading.enumerate() if each.name.startswith("upload-")]


def test_what_is_kept_can_be_read_by_another_process() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    chunks = _chunks(100)

    counts = _keep(repository, chunks)

    assert _read_all(reopened(store), chunks)
    written = sum(
        len(store.objects[name]) for name in store.names("packs/") + store.names("index/")
    )
    assert counts == Counts(100, 100, 100_000, written)
    assert _no_uploaders_left()


def test_equal_chunks_are_kept_once() -> None:
    repository = new_repository()
    chunks = _chunks(10)

    first = _keep(repository, [*chunks, *chunks, chunks[0]], batch=7)
    second = _keep(repository, chunks)

    assert (first.chunks, first.chunks_new) == (21, 10)
    assert second == Counts(10, 0, 0, 0)


def test_the_order_is_packs_then_index() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    store.puts.clear()

    _keep(repository, _chunks(40, size=MIB))

    kinds = [name.partition("/")[0] for name in store.puts]
    assert kinds == ["packs"] * 3 + ["index"]


def test_nothing_new_writes_nothing() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    before = store.names()

    with repository.writer() as writer:
        writer.lane("store")

    assert store.names() == before


def test_lanes_at_once_keep_each_chunk_once() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    chunks = _chunks(300, size=20 * KIB)

    with repository.writer() as writer:
        lanes = [writer.lane("zstd:1") for _ in range(6)]

        def work(number: int) -> None:
            mine = random.Random(number).sample(chunks, len(chunks))
            for at in range(0, len(mine), 16):
                lanes[number].keep(mine[at : at + 16])

        _in_threads(6, work)

    fresh = reopened(store)
    assert (writer.counts.chunks, writer.counts.chunks_new) == (1800, 300)
    assert len(fresh.load_index()) == 300
    assert _read_all(fresh, chunks)


def test_lanes_fill_packs_together() -> None:
    store = RecordingStore()
    with new_repository(store).writer() as writer:
        for number, lane in enumerate([writer.lane("store") for _ in range(3)]):
            lane.keep(_chunks(5, seed=number))

    assert len(store.names("packs/")) == 1


def test_frames_hold_neighbours_up_to_their_size() -> None:
    repository = new_repository()
    chunks = _chunks(200, size=10 * KIB)

    _keep(repository, chunks, batch=200)

    frames = {found.place.frame for _, found in repository.load_index()}
    assert len(frames) == 4
    assert max(frame.raw for frame in frames) <= writer_module.FRAME_BYTES + 64 * KIB


def test_trees_have_packs_of_their_own() -> None:
    store = RecordingStore()
    repository = new_repository(store)

    with repository.writer() as writer:
        writer.lane("store").keep([b"content"])
        writer.lane("store", Kind.TREE_PACK).keep([b"tree"])

    kinds = {pack.header.kind for pack in repository.load_index().packs().values()}
    assert kinds == {Kind.DATA_PACK, Kind.TREE_PACK}


def test_a_long_run_writes_its_index_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_INDEX_EVERY_CHUNKS", 20)
    store = RecordingStore()
    repository = new_repository(store)

    counts = _keep(repository, _chunks(70, size=MIB))

    assert len(store.names("index/")) > 1
    assert counts.chunks_new == 70
    assert len(reopened(store).load_index()) == 70


def test_keeping_after_the_index_was_written_still_knows_the_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer_module, "_INDEX_EVERY_CHUNKS", 1)
    repository = new_repository()
    chunks = _chunks(40, size=MIB)

    counts = _keep(repository, [*chunks, *chunks])

    assert counts.chunks_new == 40


# ---------------------------------------------------------------------- failures


def test_a_store_that_fails_ends_the_run_with_its_error_and_no_index() -> None:
    inner = RecordingStore()
    repository = new_repository(inner)
    full = StoreFull("the disk is full")
    faulty = FaultyStore(inner, put=[None, full])
    broken = reopened(faulty)

    with pytest.raises(StoreFull) as caught:
        _keep(broken, _chunks(100, size=MIB))

    assert caught.value is full
    assert inner.names("index/") == []
    assert _no_uploaders_left()
    faulty.assert_all_faults_fired()
    assert _keep(repository, _chunks(100, size=MIB)).chunks == 100


def test_chunks_of_a_buffer_are_kept_whatever_lies_between_them() -> None:
    repository = new_repository()
    chunks = _chunks(40)
    _keep(repository, chunks[20:22])  # known, so not in the frame that its neighbours are in
    buffer = memoryview(b"".join([*chunks[:10], b"read in vain", *chunks[10:]]))
    starts = [1000 * number + (12 if number >= 10 else 0) for number in range(40)]

    with repository.writer() as writer:
        spans = [(start, start + 1000) for start in starts]
        names = writer.lane("store").keep_spans(buffer, spans)

    assert names == [repository.namer(chunk) for chunk in chunks]
    assert writer.counts.chunks_new == 38
    assert _read_all(repository, chunks)


def test_after_a_failure_every_further_call_raises() -> None:
    repository = new_repository()
    writer = repository.writer()
    lane = writer.lane("store")
    failure = StoreUnavailable("gone")
    writer.fail(failure)
    writer.fail(StoreFull("later"))

    with pytest.raises(StoreUnavailable) as caught, writer:
        lane.keep([b"chunk"])

    assert caught.value is failure


def test_an_error_of_the_caller_passes_and_leaves_no_thread() -> None:
    store = RecordingStore()
    repository = new_repository(store)

    def run() -> None:
        with repository.writer() as writer:
            writer.lane("store").keep(_chunks(40, size=MIB))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()

    assert store.names("index/") == []
    assert _no_uploaders_left()


def test_a_pack_whose_answer_was_lost_counts_when_it_is_there() -> None:
    """The retrying store makes the second call; the name is the hash, so it is the same pack."""

    class Stuttering(RecordingStore):
        """Makes every call twice, as after an answer that was lost."""

        def put(self, name: str, body: Blob) -> None:
            super().put(name, body)
            if name.startswith("packs/"):
                super().put(name, body)

    store = Stuttering()
    repository = new_repository(store)

    _keep(repository, _chunks(10))

    assert _read_all(reopened(store), _chunks(10))


def test_a_pack_that_was_written_although_the_store_failed_is_taken_up() -> None:
    inner = RecordingStore()
    repository = new_repository(inner)
    lost = FaultyStore(inner, put=[AnswerLost(StoreUnavailable("no answer"))])

    with pytest.raises(StoreUnavailable):
        _keep(reopened(lost), _chunks(10))

    counts = _keep(repository, _chunks(10))
    assert counts.chunks_new == 0
    assert _read_all(reopened(inner), _chunks(10))


class _Corrupting:
    """A compressor that changes one byte in every tenth frame: failing memory."""

    def __init__(self) -> None:
        self._frames = 0

    def __call__(self, raw: Blob) -> tuple[Codec, Blob]:
        self._frames += 1
        changed = bytearray(raw)
        if self._frames % 10 == 0:
            changed[len(changed) // 2] ^= 4
        return Codec.STORE, changed


def _corrupted(repository: Repository, *, verify: bool) -> None:
    with repository.writer(verify=verify) as writer:
        lane = writer.lane("store")
        lane._compress = _Corrupting()
        for chunk in _chunks(30):
            lane.keep([chunk])


def test_what_came_out_different_is_found_before_it_is_stored() -> None:
    store = RecordingStore()
    repository = new_repository(store)

    with pytest.raises(Damaged, match="came out different") as caught:
        _corrupted(repository, verify=True)

    assert "memory" in caught.value.hint
    assert store.names("packs/") + store.names("index/") == []


def test_without_that_check_it_is_found_at_reading() -> None:
    repository = new_repository()

    _corrupted(repository, verify=False)

    wrong = 0
    reader = repository.reader()
    for chunk in _chunks(30):
        try:
            assert reader.read(repository.namer(chunk)) == chunk
        except Damaged:
            wrong += 1
    assert wrong == 3


# ---------------------------------------------------------------------- threads


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
def test_lanes_that_fill_packs_at_once_start_the_uploaders_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packer, "PACK_BYTES", KIB)
    for _ in range(40):
        repository = new_repository()
        with repository.writer() as writer:
            lanes = [writer.lane("store") for _ in range(8)]
            barrier = threading.Barrier(8)

            def keep(number: int, at: Sequence[Lane] = lanes, go: Barrier = barrier) -> None:
                go.wait()
                at[number].keep([b"%d" % number * 2000])

            _in_threads(8, keep)

        assert len(repository.load_index()) == 8


def test_a_slow_store_holds_the_run_back() -> None:
    """Never more packs than are being stored, and one that is being filled."""
    going = threading.Event()
    inside = threading.Semaphore(0)

    class Slow(RecordingStore):
        """Waits in every upload of a pack."""

        def put(self, name: str, body: Blob) -> None:
            if name.startswith("packs/"):
                inside.release()
                going.wait(20)
            super().put(name, body)

    store = Slow()
    repository = new_repository(store)
    kept: list[int] = []

    def run() -> None:
        with repository.writer() as writer:
            lane = writer.lane("store")
            for chunk in _chunks(120, size=MIB):
                lane.keep([chunk])
                kept.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(store.parallel):
        inside.acquire(timeout=20)
    thread.join(1)
    waiting = len(kept)
    going.set()
    thread.join()

    assert waiting <= (store.parallel + 1) * 17
    assert len(reopened(store).load_index()) == 120
