"""A stream of chunks is what reading each of them gives, however it is fetched."""

from __future__ import annotations

import random
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists

from kryonix_backup.crypto.seal import Sealer
from kryonix_backup.errors import Damaged, ObjectMissing, StoreUnavailable
from kryonix_backup.model import KIB, MIB, Blob, ChunkId, Entry, EntryKind
from kryonix_backup.repository import reader as reader_module
from kryonix_backup.repository.content import Ref
from kryonix_backup.repository.layout import pack_name
from kryonix_backup.repository.pack import Frame, open_frame
from kryonix_backup.repository.reader import ChunkReader
from kryonix_backup.repository.repository import Repository
from kryonix_backup.testing.faults import Changed, FaultyStore, Truncated
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened

SIZES = [1, 10, 100, 5000, 70_000, 300_000, MIB]


def _content(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number % len(SIZES)])


CONTENTS = [_content(number) for number in range(70)]


@pytest.fixture(scope="module")
def filled() -> tuple[RecordingStore, list[Ref]]:
    """A store with 70 chunks in several packs and frames."""
    store = RecordingStore()
    repository = new_repository(store)
    with repository.writer() as writer:
        lanes = [writer.lane("zstd:1") for _ in range(3)]
        for at in range(0, len(CONTENTS), 5):
            lanes[at % 3].keep(CONTENTS[at : at + 5])
    refs = [Ref(repository.namer(content), len(content)) for content in CONTENTS]
    return store, refs


def _streamed(reader: ChunkReader, refs: list[Ref]) -> list[bytes]:
    pieces = list(reader.stream(refs))
    return [bytes(piece) for piece in pieces if not isinstance(piece, Entry)]


def _threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("read")]


@settings(max_examples=25)
@given(order=lists(integers(0, 69), max_size=60))
def test_a_stream_is_what_each_read_gives(
    filled: tuple[RecordingStore, list[Ref]], order: list[int]
) -> None:
    store, refs = filled
    reader = reopened(store).reader()

    streamed = _streamed(reader, [refs[number] for number in order])

    assert streamed == [CONTENTS[number] for number in order]
    assert streamed == [bytes(reader.read(refs[number].chunk)) for number in order]
    assert _threads() == []


def test_entries_come_out_where_they_went_in(filled: tuple[RecordingStore, list[Ref]]) -> None:
    store, refs = filled
    flow: list[Ref | Entry] = []
    for number, ref in enumerate(refs):
        flow += [Entry(b"%d" % number, EntryKind.FILE, ref.length), ref]
    flow += [Entry(b"last", EntryKind.DIRECTORY, 0)]

    out = list(reopened(store).reader().stream(flow))

    assert [each for each in out if isinstance(each, Entry)] == [
        each for each in flow if isinstance(each, Entry)
    ]
    assert [bytes(each) for each in out if not isinstance(each, Entry)] == CONTENTS


def test_nothing_streams_as_nothing(filled: tuple[RecordingStore, list[Ref]]) -> None:
    assert list(reopened(filled[0]).reader().stream([])) == []


def test_neighbours_are_fetched_together(filled: tuple[RecordingStore, list[Ref]]) -> None:
    store, refs = filled
    counting = FaultyStore(store)

    list(reopened(counting).reader().stream(refs))

    ranges = [name for method, name in counting.calls if method == "get_range"]
    assert len(ranges) < len(refs) / 2


def test_small_chunks_do_not_keep_their_frames_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A selection of one file in a hundred takes one small chunk of many large frames."""
    repository = new_repository()
    taken: list[Ref] = []
    with repository.writer() as writer:
        lane = writer.lane("store")
        for number in range(100):
            chance = random.Random(number)
            chunks = [chance.randbytes(8 * KIB) for _ in range(32)]
            taken.append(Ref(lane.keep(chunks)[7], 8 * KIB))
    opened: list[int] = []

    def counted(*arguments: Any) -> Blob:
        raw = open_frame(*arguments)
        opened.append(len(raw))
        return raw

    monkeypatch.setattr(reader_module, "open_frame", counted)
    alive = 0
    for piece in repository.reader().stream(taken):
        assert not isinstance(piece, Entry)
        backing = piece.obj if isinstance(piece, memoryview) else piece
        alive += memoryview(backing).nbytes

    assert sum(opened) == 100 * 256 * KIB
    assert alive < sum(opened) / 4


def test_a_wrong_length_in_a_list_is_damaged(filled: tuple[RecordingStore, list[Ref]]) -> None:
    store, refs = filled

    with pytest.raises(Damaged, match=refs[3].chunk.hex()):
        list(reopened(store).reader().stream([refs[2], Ref(refs[3].chunk, 7)]))


def test_a_chunk_that_no_index_names_is_damaged(filled: tuple[RecordingStore, list[Ref]]) -> None:
    store, refs = filled
    unknown = ChunkId(b"\xab" * 32)
    reader = reopened(store).reader()

    with pytest.raises(Damaged, match="ab" * 32):
        reader.read(unknown)
    with pytest.raises(Damaged, match="ab" * 32):
        list(reader.stream([refs[0], Ref(unknown, 1), refs[1]]))
    assert _threads() == []


# ---------------------------------------------------------------------- damage


def _twice(store: RecordingStore) -> tuple[Repository, list[bytes]]:
    """A repository whose chunks are in two packs each, by two writers that ran at once."""
    repository = new_repository(store)
    chunks = [random.Random(number).randbytes(5000) for number in range(20)]
    with repository.writer() as one, repository.writer() as two:
        one.lane("store").keep(chunks)
        two.lane("store").keep(chunks)
    return repository, chunks


def _packs(repository: Repository, chunk: bytes) -> list[str]:
    found = repository.load_index().find_all(repository.namer(chunk))
    return [pack_name(each.pack.id) for each in found]


@pytest.mark.parametrize("hurt", ["changed", "cut", "removed"])
@pytest.mark.parametrize("copy", [0, 1])
def test_a_damaged_copy_is_replaced_by_the_other_one(hurt: str, copy: int) -> None:
    store = RecordingStore()
    repository, chunks = _twice(store)
    name = _packs(repository, chunks[0])[copy]
    body = store.objects.pop(name)
    if hurt == "changed":
        store.objects[name] = bytes(byte ^ 1 for byte in body)
    elif hurt == "cut":
        store.objects[name] = body[: len(body) // 2]
    reader = reopened(store).reader()
    refs = [Ref(repository.namer(chunk), len(chunk)) for chunk in chunks]

    assert [bytes(reader.read(ref.chunk)) for ref in refs] == chunks
    assert _streamed(reopened(store).reader(), refs) == chunks


def test_both_copies_stay_known_when_the_index_is_merged() -> None:
    """Beyond eight small segments they are one in memory."""
    store = RecordingStore()
    repository, chunks = _twice(store)
    for number in range(12):
        with repository.writer() as writer:
            writer.lane("store").keep([b"filler %d" % number])
    packs = _packs(reopened(store), chunks[0])

    assert len(packs) == 2
    for name in packs:
        hurt = store.copy()
        del hurt.objects[name]
        reader = reopened(hurt).reader()
        assert [reader.read(repository.namer(chunk)) for chunk in chunks] == chunks


@pytest.mark.parametrize("size", [5000, 300_000])
@pytest.mark.parametrize("copies", [1, 2])
def test_what_opens_and_is_not_the_chunk_is_never_given(
    monkeypatch: pytest.MonkeyPatch, size: int, copies: int
) -> None:
    """Small chunks are checked when they are taken, large ones when they are fetched."""
    repository = new_repository()
    chunk = random.Random(size).randbytes(size)
    with repository.writer() as one, repository.writer() as two:
        ref = Ref(one.lane("store").keep([chunk])[0], size)
        two.lane("store").keep([chunk])
    wrong = _packs(repository, chunk)[:copies]

    def mixed_up(sealer: Sealer, frame: Frame, sealed: Blob, where: str) -> Blob:
        raw = open_frame(sealer, frame, sealed, where)
        return bytes(len(raw)) if where.startswith(tuple(wrong)) else raw

    monkeypatch.setattr(reader_module, "open_frame", mixed_up)
    stream = repository.reader().stream([ref])

    if copies == 2:
        with pytest.raises(Damaged, match="is not what it was"):
            list(stream)
    else:
        assert list(stream) == [chunk]
    assert _threads() == []


def test_damage_names_the_pack_and_the_place(filled: tuple[RecordingStore, list[Ref]]) -> None:
    store, refs = filled[0].copy(), filled[1]
    repository = reopened(store)
    found = repository.load_index().find(refs[0].chunk)
    assert found is not None
    name = pack_name(found.pack.id)
    body = bytearray(store.objects[name])
    body[found.place.frame.offset + 3] ^= 1
    store.objects[name] = bytes(body)

    with pytest.raises(Damaged, match=f"{name} at byte {found.place.frame.offset}"):
        repository.reader().read(refs[0].chunk)
    with pytest.raises(Damaged, match=name):
        list(repository.reader().stream(refs))
    assert _threads() == []


def test_a_missing_pack_is_named(filled: tuple[RecordingStore, list[Ref]]) -> None:
    store, refs = filled[0].copy(), filled[1]
    for name in store.names("packs/"):
        del store.objects[name]

    with pytest.raises(ObjectMissing, match="packs/"):
        list(reopened(store).reader().stream(refs))


@pytest.mark.parametrize("fault", [Truncated(20), Truncated(0), Changed(17)])
def test_an_answer_that_is_cut_or_changed_on_its_way_is_asked_for_again(
    filled: tuple[RecordingStore, list[Ref]], fault: Truncated | Changed
) -> None:
    faulty = FaultyStore(filled[0], get_range=[fault])
    refs = filled[1]

    assert _streamed(reopened(faulty).reader(), refs) == CONTENTS
    faulty.assert_all_faults_fired()


def test_a_store_that_does_not_answer_is_told_as_such(
    filled: tuple[RecordingStore, list[Ref]],
) -> None:
    faulty = FaultyStore(filled[0], get_range=[StoreUnavailable("gone")] * 50)

    with pytest.raises(StoreUnavailable):
        list(reopened(faulty).reader().stream(filled[1]))
    assert _threads() == []


def test_a_stream_that_is_left_early_leaves_no_thread(
    filled: tuple[RecordingStore, list[Ref]],
) -> None:
    store, refs = filled
    stream = reopened(store).reader().stream(refs * 3)

    for _ in range(5):
        next(stream)
    assert isinstance(stream, Generator)
    stream.close()

    assert _threads() == []


def test_a_failing_list_of_chunks_leaves_no_thread(
    filled: tuple[RecordingStore, list[Ref]],
) -> None:
    store, refs = filled

    def broken() -> Iterator[Ref]:
        yield from refs * 2
        raise Damaged("the tree")

    with pytest.raises(Damaged, match="the tree"):
        list(reopened(store).reader().stream(broken()))
    assert _threads() == []


def test_one_reader_serves_several_threads(filled: tuple[RecordingStore, list[Ref]]) -> None:
    store, refs = filled
    reader = reopened(store).reader()
    wrong: list[int] = []

    def work(seed: int) -> None:
        order = random.Random(seed).sample(range(70), 70)
        for number, piece in zip(order, reader.stream([refs[n] for n in order]), strict=True):
            if piece != CONTENTS[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
