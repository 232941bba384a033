"""A list of chunks comes back as it was, however long it is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis.strategies import binary, integers

from kryonix_backup.errors import Damaged
from kryonix_backup.model import ChunkId, Entry, EntryKind
from kryonix_backup.repository.content import (
    REF_BYTES,
    Ref,
    RefList,
    list_chunks,
    named_chunks,
    refs_of,
)
from tests.repository.kept import Shelf


def _refs(count: int, seed: int = 1) -> list[Ref]:
    chance = random.Random(seed)
    return [Ref(ChunkId(chance.randbytes(32)), chance.randrange(1, 1 << 20)) for _ in range(count)]


def _entry(refs: list[Ref], shelf: Shelf) -> Entry:
    content = RefList(shelf.keep)
    for ref in refs:
        content.add(*ref)
    packed, indirect = content.close()
    return Entry(b"f", EntryKind.FILE, content.size, packed, indirect)


@settings(max_examples=30)
@given(count=integers(0, 5000), seed=integers(0, 100))
def test_every_chunk_comes_back_in_order(count: int, seed: int) -> None:
    refs, shelf = _refs(count, seed), Shelf()

    entry = _entry(refs, shelf)

    assert list(refs_of(entry, shelf.read)) == refs
    assert entry.size == sum(ref.length for ref in refs)


@pytest.mark.parametrize(
    ("count", "indirect"), [(0, False), (1, False), (64, False), (65, True), (20_000, True)]
)
def test_only_a_long_list_is_kept_apart(count: int, indirect: bool) -> None:
    refs, shelf = _refs(count), Shelf()

    entry = _entry(refs, shelf)

    assert entry.indirect is indirect
    assert len(entry.refs) <= 64 * REF_BYTES
    assert list(refs_of(entry, shelf.read)) == refs
    listed = [chunk for chunk, _ in list_chunks(entry)]
    assert listed == (named_chunks(entry) if indirect else [])
    assert listed == list(shelf.chunks)
    if not indirect:
        assert named_chunks(entry) == [ref.chunk for ref in refs]


def test_a_list_without_any_place_to_cut_is_cut_at_its_greatest_length() -> None:
    refs, shelf = [Ref(ChunkId(b"\1" * 32), 7)] * 20_000, Shelf()

    entry = _entry(refs, shelf)

    assert [length for _, length in list_chunks(entry)] == [
        8192 * REF_BYTES, 8192 * REF_BYTES, (20_000 - 2 * 8192) * REF_BYTES,
    ]  # fmt: skip
    assert list(refs_of(entry, shelf.read)) == refs


def test_appending_to_a_long_list_keeps_all_but_its_end() -> None:
    refs, shelf = _refs(20_000), Shelf()
    before = _entry(refs, shelf)
    kept = set(shelf.chunks)

    after = _entry([*refs, *_refs(10, seed=2)], shelf)

    assert len(set(shelf.chunks) - kept) <= 2
    assert named_chunks(after)[:-2] == named_chunks(before)[:-1][: len(named_chunks(after)) - 2]


def test_a_change_in_the_middle_keeps_the_lists_after_it() -> None:
    refs, shelf = _refs(20_000), Shelf()
    _entry(refs, shelf)
    kept = set(shelf.chunks)

    _entry([*refs[:10_000], *_refs(1, seed=2), *refs[10_000:]], shelf)

    assert len(set(shelf.chunks) - kept) <= 3


@given(packed=binary(max_size=200).filter(lambda packed: len(packed) % REF_BYTES != 0))
def test_a_list_that_is_cut_short_is_damaged(packed: bytes) -> None:
    shelf = Shelf()
    direct = Entry(b"a/b", EntryKind.FILE, 1, packed)
    chunk = shelf.keep(packed)
    indirect = Entry(b"a/b", EntryKind.FILE, 1, chunk + len(packed).to_bytes(4), True)

    for entry in (direct, indirect):
        with pytest.raises(Damaged, match="a/b"):
            list(refs_of(entry, shelf.read))
