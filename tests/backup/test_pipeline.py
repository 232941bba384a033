"""Whatever way bytes arrive, a part is cut, kept and named the same, in bounded memory."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from, tuples

from kryonix_backup.backup import pipeline as pipeline_module
from kryonix_backup.backup.pipeline import PartCounts, Pipeline
from kryonix_backup.chunking.fastcdc import FILE_CHUNKS, ChunkSizes, Cutter
from kryonix_backup.errors import SourceError, SourceUnreadable, StoreFull
from kryonix_backup.model import KIB, MIB, Entry, EntryKind, Problem
from kryonix_backup.repository.content import refs_of
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.tree import Root
from kryonix_backup.sources.source import Barrier, Dump, Item
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened
from kryonix_backup.testing.sources import MemorySource, Thing, items_of

SMALL = ChunkSizes(64, 256, KIB)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many buffers and chunks in little data."""
    monkeypatch.setattr(pipeline_module, "FILE_CHUNKS", SMALL)
    monkeypatch.setattr(pipeline_module, "_BUFFER_BYTES", 4 * KIB)


def _run(
    repository: Repository, dump: Dump, workers: int = 2, told: list[PartCounts] | None = None
) -> tuple[Root, PartCounts]:
    with repository.writer() as writer:
        notes = told if told is not None else []
        pipeline = Pipeline(repository, writer, "zstd:1", notes.append, workers)
        try:
            return pipeline.run(dump)
        finally:
            pipeline.close()


def _entries(repository: Repository, root: Root) -> list[Entry]:
    return list(repository.tree(root, repository.reader()).entries())


def _content(repository: Repository, entry: Entry) -> tuple[bytes, list[int]]:
    reader = repository.reader()
    refs = list(refs_of(entry, reader.read))
    return b"".join(bytes(reader.read(ref.chunk)) for ref in refs), [ref.length for ref in refs]


def _dump(things: dict[bytes, Thing]) -> Dump:
    return MemorySource(things, names=["part"]).dump("part", None)


def _threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each is not threading.main_thread()]


sizes = sampled_from([0, 1, 63, 64, 65, 1023, 1024, 1025, 4095, 4096, 4097, 9000, 20_000])


@pytest.mark.usefixtures("_small_chunks")
@settings(max_examples=40)
@given(
    files=lists(tuples(sizes, integers(1, 5000)), max_size=12),
    seed=integers(0, 100),
    workers=integers(1, 3),
    readers=integers(1, 4),
)
def test_a_stream_in_any_pieces_is_cut_like_the_whole(
    files: list[tuple[int, int]], seed: int, workers: int, readers: int
) -> None:
    repository = new_repository()
    things = {
        b"%03d" % number: Thing(random.Random(seed + number).randbytes(size), step=step)
        for number, (size, step) in enumerate(files)
    }
    cutter = Cutter(SMALL, repository.namer.chunker_seed)

    root, counts = _run(repository, _dump(things)._replace(readers=readers), workers)

    entries = _entries(repository, root)
    assert [entry.path for entry in entries] == sorted(things)
    for entry in entries:
        data = things[entry.path].data
        assert _content(repository, entry) == (data, cutter.lengths(memoryview(data)))
        assert entry.size == len(data)
    total = sum(size for size, _ in files)
    assert counts == PartCounts(len(files), 0, total, total)


def test_real_buffers_cut_like_the_whole_too() -> None:
    repository = new_repository()
    body = random.Random(1).randbytes(9 * MIB + 12_345)
    cutter = Cutter(FILE_CHUNKS, repository.namer.chunker_seed)

    root, _ = _run(repository, _dump({b"a": Thing(b"x" * 100), b"b": Thing(body, step=77_777)}))

    _, big = _entries(repository, root)
    assert _content(repository, big) == (body, cutter.lengths(memoryview(body)))


def test_an_empty_part_and_empty_entries_have_a_tree() -> None:
    repository = new_repository()
    things = {
        b"": Thing(kind=EntryKind.DIRECTORY),
        b"empty": Thing(b""),
        b"link": Thing(kind=EntryKind.SYMLINK, meta={"target": b"empty"}),
    }

    none, no_counts = _run(repository, _dump({}))
    root, counts = _run(repository, _dump(things))

    assert _entries(repository, none) == []
    assert no_counts == PartCounts()
    assert [(e.path, e.kind, e.refs) for e in _entries(repository, root)] == [
        (b"", "dir", b""), (b"empty", "file", b""), (b"link", "symlink", b""),
    ]  # fmt: skip
    assert counts == PartCounts(3, 0, 0, 0)


def test_entries_without_content_keep_their_place_among_many() -> None:
    repository = new_repository()
    things = {
        b"%06d" % number: Thing(b"%d" % number) if number % 1000 == 0 else Thing(
            kind=EntryKind.DIRECTORY)
        for number in range(10_000)
    }  # fmt: skip

    root, counts = _run(repository, _dump(things))

    assert [entry.path for entry in _entries(repository, root)] == sorted(things)
    assert counts.entries == 10_000


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("fails_at", [0, 1, 5000, 20_000])
def test_an_entry_that_cannot_be_read_is_a_problem_and_left_out(fails_at: int) -> None:
    repository = new_repository()
    body = random.Random(1).randbytes(20_000)
    things = {
        b"a": Thing(body), b"b": Thing(body, fails_at=fails_at, step=100), b"c": Thing(body[::-1]),
    }  # fmt: skip
    dump = _dump(things)

    root, counts = _run(repository, dump)

    entries = _entries(repository, root)
    assert [entry.path for entry in entries] == [b"a", b"c"]
    assert [_content(repository, entry)[0] for entry in entries] == [body, body[::-1]]
    assert counts == PartCounts(2, 0, 40_000, 40_000)
    assert [problem.path for problem in dump.problems] == ["b"]


def test_a_reader_whose_close_fails_leaves_its_entry_out() -> None:
    class Reader:
        """Reads well and cannot say what it read."""

        def readinto(self, view: memoryview) -> int:
            return 0

        def close(self) -> Entry:
            raise SourceUnreadable("it is gone")

    entry = Entry(b"a", EntryKind.FILE, 0)
    dump = Dump(iter([Item(entry, Reader)]), [])
    repository = new_repository()

    root, counts = _run(repository, dump)

    assert _entries(repository, root) == []
    assert dump.problems == [Problem("a", "it is gone")]
    assert counts == PartCounts()


def test_holes_count_for_the_size_but_are_not_read() -> None:
    repository = new_repository()
    things = {b"a": Thing(b"data", meta={"holes": [[0, 4096], [4100, 100]]})}

    root, counts = _run(repository, _dump(things))

    (entry,) = _entries(repository, root)
    assert entry.size == 4096 + 4 + 100
    assert (counts.bytes_total, counts.bytes_read) == (4200, 4)


@pytest.mark.parametrize("readers", [1, 3])
def test_a_failing_store_ends_the_run_and_every_thread(readers: int) -> None:
    before = len(_threads())
    inner = RecordingStore()
    new_repository(inner)
    repository = reopened(FaultyStore(inner, put=[StoreFull("no room")]))
    body = random.Random(1).randbytes(40 * MIB)

    dump = _dump({b"%02d" % n: Thing(body[n * MIB :]) for n in range(10)})
    with pytest.raises(StoreFull):
        _run(repository, dump._replace(readers=readers))

    assert len(_threads()) == before
    assert inner.names("index/") == []


@pytest.mark.parametrize("readers", [1, 3])
def test_a_source_that_fails_ends_every_thread(readers: int) -> None:
    before = len(_threads())

    def items() -> Iterator[Item]:
        yield from items_of(_dump({b"a": Thing(bytes(5 * MIB))}))
        raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"):
        _run(new_repository(), Dump(items(), [], readers=readers))

    assert len(_threads()) == before


def test_what_is_read_side_by_side_is_all_read_before_a_barrier_is_passed() -> None:
    reading, closed = threading.Barrier(2), []

    class Reader:
        """Goes on only when another one reads too."""

        def __init__(self, entry: Entry) -> None:
            self._entry = entry

        def readinto(self, view: memoryview) -> int:
            reading.wait(30)
            return 0

        def close(self) -> Entry:
            closed.append(self._entry.path)
            return self._entry

    def items() -> Iterator[Item | Barrier]:
        for path in (b"b", b"a"):
            entry = Entry(path, EntryKind.FILE, 0)
            yield Item(entry, partial(Reader, entry))
        yield Barrier()
        assert sorted(closed) == [b"a", b"b"]
        yield Item(Entry(b"c", EntryKind.DIRECTORY, 0))

    repository = new_repository()
    root, counts = _run(repository, Dump(items(), [], readers=2))

    assert [entry.path for entry in _entries(repository, root)] == [b"a", b"b", b"c"]
    assert counts.entries == 3


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("number", range(5))
def test_a_reader_that_fails_beside_others_ends_every_thread(number: int) -> None:
    before = len(_threads())

    class Reader:
        """Noise without end, or so much of it."""

        def __init__(self, pieces: int) -> None:
            self._left = pieces

        def readinto(self, view: memoryview) -> int:
            self._left -= 1
            if not self._left:
                raise SourceError("gone")
            count = min(len(view), 100)
            view[:count] = random.Random(self._left).randbytes(count)
            return count

        def close(self) -> Entry:
            raise AssertionError("it has no end")

    items = [
        Item(Entry(b"%d" % each, EntryKind.FILE, 0), partial(Reader, pieces))
        for each, pieces in enumerate((10**9, 10**9, 10**number))
    ]

    with pytest.raises(SourceError, match="gone"):
        _run(new_repository(), Dump(iter(items), [], readers=3))

    assert len(_threads()) == before


def test_entries_out_of_order_end_the_run() -> None:
    before = len(_threads())
    items = [Item(Entry(path, EntryKind.DIRECTORY, 0)) for path in (b"b", b"a")]

    with pytest.raises(SourceError, match="out of order"):
        _run(new_repository(), Dump(iter(items), []))

    assert len(_threads()) == before


def test_a_part_in_its_servers_order_has_the_same_tree() -> None:
    repository = new_repository()
    things = {b"b": Thing(b"x" * 100), b"a": Thing(), b"a/c": Thing(b"y"), b"a.d": Thing(b"z")}
    source = MemorySource(things, names=["part"])
    ordered = source.dump("part", None)
    root, _ = _run(repository, ordered)
    items = reversed(list(source.dump("part", None).items))

    assert _run(repository, Dump(items, [], ordered=False))[0] == root


def test_counts_are_told_as_they_grow() -> None:
    told: list[PartCounts] = []
    body = random.Random(1).randbytes(8 * MIB)

    _, counts = _run(new_repository(), _dump({b"a": Thing(body), b"b": Thing(b"x")}), told=told)

    assert [each.bytes_read for each in told] == sorted(each.bytes_read for each in told)
    assert told[-1] == counts == PartCounts(2, 0, 8 * MIB + 1, 8 * MIB + 1)


PROGRAM = """
import random, resource, sys
from kryonix_backup.model import MIB
from kryonix_backup.testing.repositories import RecordingStore, back_up, new_repository
from kryonix_backup.testing.sources import MemorySource, Thing, _MemoryReader

class Sink(RecordingStore):
    # keeps everything but packs
    def put(self, name, body):
        super().put(name, b"" if name.startswith("packs/") else body)

class Endless(MemorySource):
    # a file that is made as it is read
    def _open(self, entry, thing):
        return Random(entry, SIZE)

class Random:
    def __init__(self, entry, size):
        self.entry, self.left, self.random = entry, size, random.Random(1)
    def readinto(self, view):
        count = min(len(view), self.left, MIB)
        view[:count] = self.random.randbytes(count)
        self.left -= count
        return count
    def close(self):
        return self.entry

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

SIZE = 1 * MIB
back_up(new_repository(Sink()), Endless({b"a": Thing()}))
SIZE = int(sys.argv[1]) * MIB
back_up(new_repository(Sink()), Endless({b"a": Thing()}))
print(peak())
"""


def _peak_mib(stream_mib: int) -> int:
    command = [sys.executable, "-c", PROGRAM, str(stream_mib)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return int(done.stdout)


def test_memory_does_not_grow_with_the_stream() -> None:
    """Resident memory at its peak, in a process of its own."""
    assert _peak_mib(300) <= _peak_mib(120) + 24
