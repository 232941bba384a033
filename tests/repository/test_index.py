"""The index says what a dictionary of the same places would say."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis.strategies import builds, dictionaries, integers, lists, sampled_from

from kryonix_backup.crypto.seal import Header, Kind
from kryonix_backup.errors import Damaged
from kryonix_backup.model import ChunkId, KeyId, PackId
from kryonix_backup.repository.codec import Codec
from kryonix_backup.repository.index import RECORD_BYTES, Found, Index, Segment
from kryonix_backup.repository.pack import Frame, PackInfo, Place

HEADER = Header(Kind.DATA_PACK, KeyId("ab" * 16), bytes(32))

# Ids that begin alike, as those of millions of chunks do, so that every column is searched.
chunk_ids = builds(
    lambda start, end: ChunkId(bytes([1, 2, 3, start % 4]) + bytes(27) + bytes([end % 32])),
    integers(0, 255),
    integers(0, 255),
)
places = builds(
    lambda offset, start, codec: Place(Frame(offset, 100, 200, codec), start, 7),
    integers(0, (1 << 32) - 1),
    integers(0, (1 << 32) - 1),
    sampled_from(Codec),
)
packs = dictionaries(chunk_ids, places, max_size=40)


def _pack(number: int) -> PackInfo:
    return PackInfo(PackId(f"{number:064x}"), 1000 + number, HEADER)


def _segment(numbered: Iterable[tuple[int, Mapping[ChunkId, Place]]]) -> Segment:
    return Segment.of([(_pack(number), chunks.items()) for number, chunks in numbered])


def _index(contents: list[dict[ChunkId, Place]]) -> Index:
    """Every pack in a segment of its own: from nine on they are merged in memory."""
    index = Index()
    for number, chunks in enumerate(contents):
        index.add({f"index/{number}": _segment([(number, chunks)])})
    return index


def _expected(contents: list[dict[ChunkId, Place]], chunk: ChunkId) -> set[Found]:
    return {
        Found(_pack(number), chunks[chunk])
        for number, chunks in enumerate(contents)
        if chunk in chunks
    }


@given(contents=lists(packs, max_size=12), asked=lists(chunk_ids, max_size=20))
def test_every_place_of_a_chunk_is_found_however_many_segments_there_are(
    contents: list[dict[ChunkId, Place]], asked: list[ChunkId]
) -> None:
    index = _index(contents)

    for chunk in {*asked, *(chunk for chunks in contents for chunk in chunks)}:
        expected = _expected(contents, chunk)
        found = index.find(chunk)
        assert set(index.find_all(chunk)) == expected
        assert found in expected if expected else found is None
        for number in range(len(contents)):
            pack = _pack(number)
            there = any(each.pack == pack for each in expected)
            assert index.is_in(chunk, {pack.id}) is there
        assert index.is_in(chunk, frozenset()) is False


@given(contents=lists(packs, max_size=12))
def test_going_through_the_index_gives_everything_once(
    contents: list[dict[ChunkId, Place]],
) -> None:
    index = _index(contents)
    everything = sorted(
        (chunk, Found(_pack(number), place))
        for number, chunks in enumerate(contents)
        for chunk, place in chunks.items()
    )

    assert sorted(index) == everything
    assert len(index) == len(everything)
    assert index.packs() == {_pack(n).id: _pack(n) for n in range(len(contents))}


@given(contents=lists(packs, min_size=1, max_size=5))
def test_a_segment_comes_back_out_of_its_bytes(contents: list[dict[ChunkId, Place]]) -> None:
    segment = _segment(enumerate(contents))

    again = Segment.from_bytes(segment.to_bytes(), "index/1")

    assert again.packs == segment.packs
    assert list(again) == list(segment)


@given(contents=lists(packs, min_size=1, max_size=5))
def test_one_segment_of_several_says_what_they_said(
    contents: list[dict[ChunkId, Place]],
) -> None:
    several = [_segment([(number, chunks)]) for number, chunks in enumerate(contents)]

    merged = Segment.merged(several)

    assert sorted(merged) == sorted(row for segment in several for row in segment)


def test_a_pack_that_two_writers_indexed_is_one_pack() -> None:
    chunks = {ChunkId(bytes(32)): Place(Frame(56, 100, 200, Codec.ZSTD), 0, 7)}
    index = Index()
    for number in range(20):  # as many as are merged
        index.add({f"index/{number}": _segment([(1, chunks)])})

    assert index.packs() == {_pack(1).id: _pack(1)}
    assert set(index.find_all(ChunkId(bytes(32)))) == {Found(_pack(1), chunks[ChunkId(bytes(32))])}


@settings(max_examples=30)
@given(seed=integers(0, 1000))
def test_many_chunks_are_found_and_others_are_not(seed: int) -> None:
    chance = random.Random(seed)
    chunks = {
        ChunkId(chance.randbytes(32)): Place(Frame(n, 100, 200, Codec.STORE), n, 7)
        for n in range(500)
    }
    segment = _segment([(1, chunks)])

    for chunk, place in chunks.items():
        assert list(segment.find_all(chunk)) == [Found(_pack(1), place)]
        near = ChunkId(chunk[:-1] + bytes([chunk[-1] ^ 1]))
        assert list(segment.find_all(near)) == []


def test_segments_added_by_several_threads_are_all_there() -> None:
    """Sources of one tenant are backed up at once, each with a writer of its own."""
    place = Place(Frame(56, 100, 200, Codec.STORE), 0, 7)
    chunks = [ChunkId(number.to_bytes(32)) for number in range(2000)]
    index = Index()

    def add(start: int) -> None:
        for number in range(start, len(chunks), 4):
            index.add({f"index/{number}": _segment([(number, {chunks[number]: place})])})

    threads = [threading.Thread(target=add, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [chunk for chunk in chunks if index.find(chunk) is None] == []


def test_an_index_costs_little_memory_a_chunk() -> None:
    segment = _segment([(1, {ChunkId(n.to_bytes(32)): Place(Frame(1, 2, 3, Codec.STORE), 4, 5)
                             for n in range(1000)})])  # fmt: skip

    assert RECORD_BYTES == 57
    assert sum(len(column) for column in segment._columns) + len(segment._records) == 60_000


PACKED = {"packs": [(bytes(32), 1000, HEADER.to_bytes())], "records": bytes(RECORD_BYTES)}


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\xc1",
        b"\xdf\xff\xff\xff\xff",
        msgpack.packb(7),
        msgpack.packb([]),
        msgpack.packb({}),
        msgpack.packb({**PACKED, "packs": 7}),
        msgpack.packb({**PACKED, "packs": [7]}),
        msgpack.packb({**PACKED, "packs": [("text", 1000, HEADER.to_bytes())]}),
        msgpack.packb({**PACKED, "packs": [(bytes(32), 1000, b"short")]}),
        msgpack.packb({**PACKED, "packs": [(bytes(32), 1000, b"X" * 56)]}),
        msgpack.packb({**PACKED, "packs": [(bytes(32), "long", HEADER.to_bytes())]}),
        msgpack.packb({**PACKED, "records": 7}),
        msgpack.packb({**PACKED, "records": "text" * RECORD_BYTES}),
        msgpack.packb({**PACKED, "records": bytes(RECORD_BYTES - 1)}),
        msgpack.packb({**PACKED, "records": [1] * RECORD_BYTES}),
    ],
)
def test_what_is_no_segment_is_damaged_and_named(plain: bytes) -> None:
    with pytest.raises(Damaged, match="index/1"):
        Segment.from_bytes(plain, "index/1")
