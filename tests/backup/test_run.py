"""A backup names what it saw, reads what changed, and counts only when it is published."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta

import pytest

from kryonix_backup.backup import pipeline as pipeline_module
from kryonix_backup.backup.run import Session, back_up_source, begin, publish
from kryonix_backup.chunking.fastcdc import ChunkSizes
from kryonix_backup.errors import ConfigError, SourceError, StoreFull
from kryonix_backup.events import quiet
from kryonix_backup.model import KIB, MIB, BackupKind, ChunkId, Entry, EntryKind, SourceName
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import SourceResult
from kryonix_backup.sources.source import Item
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import (
    ACME,
    FILES,
    RecordingStore,
    back_up,
    new_repository,
    reopened,
    settings_of,
)
from kryonix_backup.testing.sources import MemorySource, Thing

FULL, INCREMENTAL = BackupKind.FULL, BackupKind.INCREMENTAL


def _data(seed: int, size: int = 100 * KIB) -> bytes:
    return random.Random(seed).randbytes(size)


THINGS = {
    b"": Thing(kind=EntryKind.DIRECTORY),
    b"a": Thing(_data(1), stamp=[1]),
    b"d": Thing(kind=EntryKind.DIRECTORY),
    b"d/b": Thing(_data(2), stamp=[2]),
    b"d/empty": Thing(b"", stamp=[3]),
    b"z": Thing(_data(3)),
}


def _read(repository: Repository, snapshot: str = "latest") -> dict[bytes, bytes]:
    """Every file of a snapshot, read back."""
    reader = repository.reader()
    contents = {}
    for source in repository.snapshot(snapshot).sources.values():
        for part in source.parts:
            for entry in repository.tree(part.root, reader).entries():
                pieces = [reader.read(chunk) for chunk in _chunks(entry.refs)]
                if entry.kind is EntryKind.FILE:
                    contents[entry.path] = b"".join(bytes(piece) for piece in pieces)
    return contents


def _chunks(refs: bytes) -> list[ChunkId]:
    return [ChunkId(refs[at : at + 32]) for at in range(0, len(refs), 36)]


def _files(things: dict[bytes, Thing]) -> dict[bytes, bytes]:
    return {path: each.data for path, each in things.items() if each.kind is EntryKind.FILE}


def test_what_was_backed_up_is_there_again() -> None:
    store = RecordingStore()

    report = back_up(new_repository(store), MemorySource(THINGS))

    assert _read(reopened(store)) == _files(THINGS)
    snapshot = reopened(store).snapshot("latest")
    assert snapshot == report.snapshot
    assert (snapshot.tenant, snapshot.kind, snapshot.parent) == (ACME, FULL, None)
    assert (snapshot.started, snapshot.finished) == (NOON, NOON)
    assert snapshot.settings == settings_of("files").to_plain()


def test_the_snapshot_is_written_last() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    store.puts.clear()

    report = back_up(repository, MemorySource(THINGS))

    kinds = [name.partition("/")[0] for name in store.puts]
    assert kinds == sorted(kinds, key=["packs", "index", "snapshots"].index)
    assert kinds[-1] == "snapshots"
    assert store.puts[-1] == f"snapshots/{report.snapshot.id}"


def test_an_unpublished_session_is_no_snapshot_and_nothing_of_it_is_stored_twice() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    session = begin(repository, FULL, FixedClock())
    settings = settings_of("files")
    back_up_source(
        repository, session, settings.sources[0], MemorySource(THINGS), quiet, FixedClock()
    )

    assert reopened(store).snapshot_ids() == []
    again = back_up(reopened(store), MemorySource(THINGS))
    assert again.snapshot.sources[FILES].chunks_new == 0


def test_an_incremental_run_reads_only_what_may_have_changed() -> None:
    repository = new_repository()
    back_up(repository, MemorySource(THINGS))
    changed = {**THINGS, b"d/b": Thing(_data(4), stamp=[5]), b"n": Thing(_data(5), stamp=[6])}
    del changed[b"d/empty"]
    source = MemorySource(changed)

    report = back_up(repository, source, kind=INCREMENTAL, clock=FixedClock(NOON + _DAY))

    assert source.opened == [b"d/b", b"n", b"z"]
    assert _read(repository) == _files(changed)
    result = report.snapshot.sources[FILES]
    assert (result.entries, result.entries_unchanged) == (6, 1)
    assert (result.bytes_total, result.bytes_read) == (400 * KIB, 300 * KIB)


_DAY = timedelta(days=1)


def test_a_full_run_reads_everything_and_stores_nothing_twice() -> None:
    repository = new_repository()
    back_up(repository, MemorySource(THINGS))
    source = MemorySource(THINGS)

    report = back_up(repository, source, kind=FULL)

    result = report.snapshot.sources[FILES]
    assert source.opened == [b"a", b"d/b", b"d/empty", b"z"]
    assert (result.chunks_new, result.bytes_new, result.bytes_stored) == (0, 0, 0)


def test_the_first_incremental_run_reads_everything() -> None:
    source = MemorySource(THINGS)

    back_up(new_repository(), source, kind=INCREMENTAL)

    assert source.opened == [b"a", b"d/b", b"d/empty", b"z"]


def test_an_incremental_run_goes_back_to_the_newest_snapshot_with_that_source() -> None:
    repository = new_repository()
    back_up(repository, MemorySource(THINGS), name="files")
    back_up(repository, MemorySource({}), name="other", clock=FixedClock(NOON + _DAY))
    source = MemorySource(THINGS)

    back_up(repository, source, kind=INCREMENTAL, clock=FixedClock(NOON + 2 * _DAY))

    assert source.opened == [b"z"]


@pytest.mark.parametrize("kind", [FULL, INCREMENTAL])
def test_what_a_lost_pack_held_is_stored_again(kind: BackupKind) -> None:
    store = RecordingStore()
    back_up(new_repository(store), MemorySource(THINGS))
    for name in store.names("packs/"):
        hurt = store.copy()
        del hurt.objects[name]

        back_up(reopened(hurt), MemorySource(THINGS), kind=kind, clock=FixedClock(NOON + _DAY))

        assert _read(reopened(hurt)) == _files(THINGS)
        old = reopened(hurt).snapshot_ids()[0]
        assert _read(reopened(hurt), old) == _files(THINGS)


def test_only_entries_that_lost_chunks_are_read_again() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    back_up(repository, MemorySource({b"a": THINGS[b"a"]}))
    first = set(store.names("packs/"))
    both = {b"a": THINGS[b"a"], b"b": Thing(_data(2), stamp=[2])}
    back_up(repository, MemorySource(both), kind=INCREMENTAL, clock=FixedClock(NOON + _DAY))
    for name in first:
        del store.objects[name]
    source = MemorySource(both)

    later = FixedClock(NOON + 2 * _DAY)
    report = back_up(reopened(store), source, kind=INCREMENTAL, clock=later)

    assert source.opened == [b"a"]
    assert report.snapshot.sources[FILES].entries_unchanged == 1
    assert _read(reopened(store)) == _files(both)


def test_a_long_list_that_lost_its_chunks_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "FILE_CHUNKS", ChunkSizes(64, 256, KIB))
    store = RecordingStore()
    things = {b"long": Thing(_data(1, 200 * KIB), stamp=[1])}
    back_up(new_repository(store), MemorySource(things))

    for name in store.names("packs/"):
        hurt = store.copy()
        del hurt.objects[name]
        source = MemorySource(things)
        back_up(reopened(hurt), source, kind=INCREMENTAL, clock=FixedClock(NOON + _DAY))
        assert source.opened == [b"long"]

    sound = MemorySource(things)
    report = back_up(reopened(store), sound, kind=INCREMENTAL, clock=FixedClock(NOON + _DAY))
    assert sound.opened == []
    assert report.snapshot.sources[FILES].bytes_total == 200 * KIB


@pytest.mark.parametrize("hurt", ["removed", "changed", "cut"])
def test_a_damaged_newest_snapshot_does_not_stop_incremental_runs(hurt: str) -> None:
    store = RecordingStore()
    back_up(new_repository(store), MemorySource(THINGS))
    back_up(reopened(store), MemorySource(THINGS), clock=FixedClock(NOON + _DAY))
    newest = store.names("snapshots/")[-1]
    body = store.objects.pop(newest)
    if hurt != "removed":
        store.objects[newest] = body[:-1] + (b"" if hurt == "cut" else b"\0")
    source = MemorySource(THINGS)

    back_up(reopened(store), source, kind=INCREMENTAL, clock=FixedClock(NOON + 2 * _DAY))

    assert source.opened == [b"z"]
    assert _read(reopened(store)) == _files(THINGS)


def test_two_sources_of_a_session_are_backed_up_at_once() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    clock = FixedClock()
    session = begin(repository, FULL, clock)
    settings = settings_of("one", "two", "three", "four")
    shared = _data(9, MIB)
    sources = [{b"own": Thing(_data(number, MIB)), b"shared": Thing(shared)} for number in range(4)]
    results: dict[int, SourceResult] = {}

    def run(number: int) -> None:
        results[number] = back_up_source(
            repository, session, settings.sources[number], MemorySource(sources[number]), quiet,
            clock,
        )  # fmt: skip

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publish(repository, session, [results[number] for number in range(4)], settings, clock)

    for there in (repository, reopened(store)):
        snapshot = there.snapshot("latest")
        assert sorted(snapshot.sources) == ["four", "one", "three", "two"]
        reader = there.reader()
        for number, name in enumerate(("one", "two", "three", "four")):
            (part,) = snapshot.sources[SourceName(name)].parts
            found = {
                entry.path: b"".join(bytes(reader.read(c)) for c in _chunks(entry.refs))
                for entry in there.tree(part.root, reader).entries()
            }
            assert found == _files(sources[number])


def test_a_session_and_its_results_travel_as_json() -> None:
    session = begin(new_repository(), INCREMENTAL, FixedClock())

    assert Session.from_plain(session.to_plain()) == session


def test_the_parent_is_the_newest_snapshot() -> None:
    repository = new_repository()
    first = back_up(repository, MemorySource(THINGS)).snapshot

    assert begin(repository, FULL, FixedClock(NOON + _DAY)).parent == first.id


def test_ids_sort_by_publication_even_where_a_clock_was_set_back() -> None:
    repository = new_repository()
    late = NOON.replace(microsecond=900_000)
    clocks = [NOON, late, NOON, NOON - 400 * _DAY, NOON, NOON + _DAY, NOON - _DAY]

    made = [
        back_up(repository, MemorySource({}), clock=FixedClock(moment)).snapshot
        for moment in clocks
    ]

    assert repository.snapshot_ids() == [snapshot.id for snapshot in made]
    assert [snapshot.started for snapshot in made] == clocks
    assert repository.snapshot("latest") == made[-1]


@pytest.mark.parametrize("kind", [FULL, INCREMENTAL])
def test_a_source_that_is_empty_all_at_once_is_told(kind: BackupKind) -> None:
    """As a mount point is whose disk is not mounted."""
    repository, empty = new_repository(), MemorySource({b"": Thing(kind=EntryKind.DIRECTORY)})
    assert back_up(repository, empty).status == "complete"
    back_up(repository, MemorySource(THINGS), clock=FixedClock(NOON + _DAY))

    report = back_up(repository, empty, kind=kind, clock=FixedClock(NOON + 2 * _DAY))
    again = back_up(repository, empty, kind=kind, clock=FixedClock(NOON + 3 * _DAY))

    (problem,) = report.snapshot.sources[SourceName("files")].problems
    assert problem.reason == "it is empty, and held 6 entries before: is its disk mounted?"
    assert again.status == "complete"


def test_a_source_without_a_log_has_no_log_backup() -> None:
    with pytest.raises(ConfigError, match="log"):
        begin(new_repository(), BackupKind.LOG, FixedClock())


def test_a_source_of_several_parts_keeps_them_apart() -> None:
    repository = new_repository()
    source = MemorySource(THINGS, {b"x": Thing(b"1", stamp=1)}, {}, names=["t", "u", "v"])

    report = back_up(repository, source)
    again = MemorySource(THINGS, {b"x": Thing(b"1", stamp=1)}, {}, names=["t", "u", "v"])
    back_up(repository, again, kind=INCREMENTAL, clock=FixedClock(NOON + _DAY))

    result = report.snapshot.sources[FILES]
    assert [(part.name, part.entries, part.bytes) for part in result.parts] == [
        ("t", 6, 300 * KIB), ("u", 1, 1), ("v", 0, 0),
    ]  # fmt: skip
    assert (result.entries, result.bytes_total) == (7, 300 * KIB + 1)
    assert again.opened == [b"z"]


# ---------------------------------------------------------------------- failures


def test_a_store_that_fails_publishes_nothing() -> None:
    inner = RecordingStore()
    new_repository(inner)
    for fails_at in range(4):
        faulty = FaultyStore(inner, put=[None] * fails_at + [StoreFull("no room")])
        try:
            back_up(reopened(faulty), MemorySource({b"%d" % fails_at: Thing(_data(fails_at))}))
        except StoreFull:
            continue
        assert fails_at >= 3  # two packs, an index and the snapshot
    assert len(reopened(inner).snapshot_ids()) == 0


def test_a_session_is_published_once() -> None:
    repository = new_repository()
    session = begin(repository, FULL, FixedClock())

    first = publish(repository, session, [], settings_of(), FixedClock())
    again = publish(repository, session, [], settings_of(), FixedClock(NOON + _DAY))

    assert again.snapshot == first.snapshot
    assert repository.snapshot_ids() == [session.snapshot]


def test_an_unknown_compression_is_refused_before_anything_is_stored() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    store.puts.clear()
    settings = settings_of("files", compression="lzma")
    session = begin(repository, FULL, FixedClock())

    with pytest.raises(ConfigError, match="lzma"):
        back_up_source(
            repository, session, settings.sources[0], MemorySource(THINGS), quiet, FixedClock()
        )
    assert store.puts == []


def test_a_source_that_fails_names_itself_and_leaves_no_snapshot() -> None:
    class Broken(MemorySource):
        """Fails in its second part."""

        def _items(self, part: Mapping[bytes, Thing], since: Iterator[Entry]) -> Iterator[Item]:
            yield from super()._items(part, since)
            raise SourceError("the connection broke")

    store = RecordingStore()

    with pytest.raises(SourceError, match="broke"):
        back_up(new_repository(store), Broken(THINGS))

    assert reopened(store).snapshot_ids() == []
    assert back_up(reopened(store), MemorySource(THINGS)).status == "complete"
