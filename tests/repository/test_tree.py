"""A tree gives back the entries it was given, in order, and shares what did not change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis.strategies import binary, booleans, builds, integers, lists, sampled_from, tuples

from kryonix_backup.errors import Damaged, SourceError
from kryonix_backup.model import ChunkId, Entry, EntryKind, sort_key
from kryonix_backup.repository.tree import Root, TreeReader, TreeWriter
from tests.repository.kept import Shelf

SEED = 1991971742
MOST_SIZE = (1 << 64) - 1

names = binary(min_size=1, max_size=4).filter(lambda name: b"/" not in name and b"\0" not in name)
paths = lists(names, max_size=4).map(b"/".join)
sorted_paths = lists(paths, unique=True, max_size=60).map(lambda all_: sorted(all_, key=sort_key))
entries_of = builds(
    Entry,
    paths,
    sampled_from(EntryKind),
    integers(0, 1 << 62),
    binary(max_size=80),
    booleans(),
    sampled_from([None, 7, [1, 2, 3], "text", b"\xff"]),
    sampled_from([{}, {"mode": 0o644, "xattrs": {b"\xff": b"\0"}}, {"holes": [[0, 4096]]}]),
)
sorted_entries = lists(entries_of, unique_by=lambda entry: entry.path, max_size=60).map(
    lambda all_: sorted(all_, key=lambda entry: sort_key(entry.path))
)


def _write(shelf: Shelf, entries: Iterable[Entry], seed: int = SEED) -> Root:
    tree = TreeWriter(shelf.keep, seed)
    for entry in entries:
        tree.add(entry)
    return tree.close()


def _files(count: int, size: Callable[[int], int] = lambda number: number) -> list[Entry]:
    return [
        Entry(b"dir/%07d" % number, EntryKind.FILE, size(number), bytes(36), stamp=[number])
        for number in range(count)
    ]


@settings(max_examples=80)
@given(entries=sorted_entries, seed=integers(0, (1 << 32) - 1))
def test_entries_come_back_as_they_were(entries: list[Entry], seed: int) -> None:
    shelf = Shelf()

    tree = TreeReader(_write(shelf, entries, seed), shelf.read)

    assert list(tree.entries()) == entries
    assert tree.totals() == (len(entries), min(sum(entry.size for entry in entries), MOST_SIZE))
    assert [entry for leaf in tree.leaves() for entry in tree.leaf(leaf)] == entries
    assert set(tree.leaves()) <= set(tree.chunks()) == set(shelf.chunks)


@settings(max_examples=40)
@given(all_paths=sorted_paths, start=paths, times=integers(1, 40))
def test_reading_from_a_path_on_gives_what_is_at_it_and_after_it(
    all_paths: list[bytes], start: bytes, times: int
) -> None:
    shelf = Shelf()
    grown = sorted(
        {path + (b"" if not n else b"%d" % n) for path in all_paths for n in range(times)},
        key=sort_key,
    )
    tree = TreeReader(_write(shelf, (Entry(p, EntryKind.FILE, 1) for p in grown)), shelf.read)

    after = [entry.path for entry in tree.entries(start)]
    below = [entry.path for entry in tree.below(start)]

    assert after == [path for path in grown if sort_key(path) >= sort_key(start)]
    assert below == [
        path for path in grown if not start or path == start or path.startswith(start + b"/")
    ]


@given(entries=sorted_entries)
def test_the_same_entries_have_the_same_root(entries: list[Entry]) -> None:
    assert _write(Shelf(), entries) == _write(Shelf(), entries)


def test_sparse_files_of_more_than_a_number_can_say_are_kept_all_the_same() -> None:
    entries, shelf = _files(3000, lambda number: (1 << 63) - 1), Shelf()

    root = _write(shelf, entries)
    tree = TreeReader(root, shelf.read)

    assert root.levels > 0
    assert list(tree.entries()) == entries
    assert tree.totals() == (3000, MOST_SIZE)


def test_a_large_directory_is_a_tree_of_levels_read_by_stream() -> None:
    entries, shelf = _files(100_000), Shelf()

    root = _write(shelf, entries)
    tree = TreeReader(root, shelf.read)

    assert 1 <= root.levels <= 3
    assert all(len(raw) <= (1 << 20) + 200 for raw in shelf.chunks.values())
    assert sum(1 for _ in tree.entries()) == 100_000
    assert tree.totals() == (100_000, sum(range(100_000)))
    shelf.reads.clear()
    assert next(tree.entries(b"dir/0070000")).path == b"dir/0070000"
    assert len(shelf.reads) <= root.levels + 2


@pytest.mark.parametrize(
    "edit",
    [
        lambda entries: entries[5000]._replace(size=9),
        lambda entries: entries[5000]._replace(path=entries[5000].path + b"x"),
    ],
)
def test_a_change_rewrites_one_leaf_or_two_and_the_nodes_above(
    edit: Callable[[list[Entry]], Entry],
) -> None:
    entries, shelf = _files(20_000), Shelf()
    root = _write(shelf, entries)
    kept = set(shelf.chunks)

    _write(shelf, [*entries[:5000], edit(entries), *entries[5001:]])

    assert len(kept) > 40
    assert len(set(shelf.chunks) - kept) <= 2 + root.levels


def test_an_insertion_and_a_removal_touch_few_leaves() -> None:
    entries, shelf = _files(20_000), Shelf()
    root = _write(shelf, entries)
    kept = set(shelf.chunks)

    _write(shelf, [*entries[:9000], entries[9000]._replace(path=b"dir/0008999x"), *entries[9000:]])
    _write(shelf, [*entries[:3000], *entries[3001:]])

    assert len(set(shelf.chunks) - kept) <= 2 * (2 + root.levels)


@given(one=paths, two=paths)
def test_entries_out_of_order_are_refused(one: bytes, two: bytes) -> None:
    first, second = sorted((one, two), key=sort_key, reverse=True)
    tree = TreeWriter(Shelf().keep, SEED)
    tree.add(Entry(first, EntryKind.FILE, 1))

    with pytest.raises(SourceError, match="twice, or out of order"):
        tree.add(Entry(second, EntryKind.FILE, 1))


def test_everything_in_a_directory_follows_it() -> None:
    """By plain bytes ``a.txt`` would stand between ``a`` and ``a/b``."""
    shelf = Shelf()
    ordered = [b"", b"a", b"a/b", b"a/b/c", b"a.txt"]

    tree = TreeReader(_write(shelf, [Entry(p, EntryKind.FILE, 1) for p in ordered]), shelf.read)

    assert [entry.path for entry in tree.below(b"a")] == [b"a", b"a/b", b"a/b/c"]


def test_a_part_without_entries_has_a_tree() -> None:
    shelf = Shelf()

    tree = TreeReader(_write(shelf, []), shelf.read)

    assert list(tree.entries()) == []
    assert tree.totals() == (0, 0)


@given(seed=integers(0, 255), depth=integers(0, 300))
def test_no_seed_and_no_names_make_a_tree_without_end(seed: int, depth: int) -> None:
    shelf = Shelf()
    entries = [Entry(b"x/" * n + b"x", EntryKind.DIRECTORY, 0) for n in range(depth)]

    root = _write(shelf, [Entry(b"", EntryKind.DIRECTORY, 0), *entries], seed)

    assert root.levels <= 12
    assert len(list(TreeReader(root, shelf.read).entries())) == depth + 1


GOOD: tuple[Any, ...] = (b"a", "file", 1, b"", False, None, {})


def _row(**changes: Any) -> bytes:
    fields = ("path", "kind", "size", "refs", "indirect", "stamp", "meta")
    row = [changes.get(field, value) for field, value in zip(fields, GOOD, strict=True)]
    packed: bytes = msgpack.packb([row])
    return packed


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        os.urandom(0) + b"\x91",
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x81\x90\xc0",  # a map whose key is a list
        b"\x81\x80\xc0",
        b"\xa1\xff",  # text that is not UTF-8
        b"\xc7\x0c\xff" + b"\xff" * 12,  # a time that does not exist
        msgpack.packb(7),
        msgpack.packb({}),
        msgpack.packb([7]),
        msgpack.packb([[]]),
        msgpack.packb([[*GOOD, 1]]),
        msgpack.packb([GOOD]) + b"\0",
        _row(path="text"),
        _row(path=5),
        _row(path=None),
        _row(kind="door"),
        _row(kind=[]),
        _row(size="1"),
        _row(size=-1),
        _row(size=None),
        _row(refs="text"),
        _row(refs=5),
        _row(indirect=7),
        _row(meta=None),
        _row(meta=[]),
    ],
)
def test_a_leaf_in_the_wrong_form_is_damaged(raw: bytes) -> None:
    chunk = ChunkId(b"\xab" * 32)

    with pytest.raises(Damaged, match="ab" * 32):
        list(TreeReader(Root(chunk, 0), lambda _: raw).entries(b"a"))


@pytest.mark.parametrize(
    "row",
    [
        7,
        [],
        [b"a", bytes(32), 1],
        ["a", bytes(32), 1, 1],
        [1 << 40, bytes(32), 1, 1],
        [b"a", 1 << 40, 1, 1],
        [b"a", bytes(31), 1, 1],
        [b"a", bytes(32), "1", 1],
        [b"a", bytes(32), 1, None],
    ],
)
def test_a_node_in_the_wrong_form_is_damaged(row: Any) -> None:
    raw = msgpack.packb([row])

    for look in (
        lambda tree: list(tree.entries()),
        lambda tree: list(tree.chunks()),
        lambda tree: tree.totals(),
    ):
        with pytest.raises(Damaged):
            look(TreeReader(Root(ChunkId(b"\xab" * 32), 1), lambda _: raw))


@given(chunk=binary(min_size=32, max_size=32), levels=integers(0, 12))
def test_a_root_comes_back_out_of_its_json(chunk: bytes, levels: int) -> None:
    root = Root(ChunkId(chunk), levels)

    assert Root.from_plain(root.to_plain()) == root


@given(
    plain=tuples(sampled_from(["ab" * 32, "ab", "zz" * 32, None, 7]), sampled_from([-1, 13, "x"]))
)
def test_a_root_in_the_wrong_form_is_damaged(plain: tuple[Any, Any]) -> None:
    for wrong in (plain, [plain[0]], [], None, 7, ["ab" * 31, 0]):
        with pytest.raises(Damaged):
            Root.from_plain(wrong)  # type: ignore[arg-type]
