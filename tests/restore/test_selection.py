"""Patterns pick entries as gitignore would, with all that they need to come back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis.strategies import dictionaries, integers, lists, sampled_from

from kryonix_backup.errors import Damaged
from kryonix_backup.model import KIB, Entry, EntryKind
from kryonix_backup.repository.repository import Repository
from kryonix_backup.restore.selection import Selection
from kryonix_backup.testing.repositories import FILES, back_up, new_repository
from kryonix_backup.testing.sources import MemorySource, Thing

DIRECTORY = Thing(kind=EntryKind.DIRECTORY)
TREE = {
    b"": DIRECTORY,
    b"a.txt": Thing(b"a"),
    b"docs": DIRECTORY,
    b"docs/deep": DIRECTORY,
    b"docs/deep/b.txt": Thing(b"bb"),
    b"docs/deep/c.log": Thing(b"ccc"),
    b"docs/empty": DIRECTORY,
    b"docs.txt": Thing(b"dddd"),
    b"x\xff.txt": Thing(b"eeeee"),
}


def _hard(target: bytes) -> Thing:
    return Thing(kind=EntryKind.HARDLINK, meta={"target": target})


def _selection(tree: dict[bytes, Thing], *include: str) -> Selection:
    repository = new_repository()
    return _of(repository, tree, *include)


def _of(repository: Repository, tree: dict[bytes, Thing], *include: str) -> Selection:
    snapshot = back_up(repository, MemorySource(tree)).snapshot
    return Selection(repository, snapshot.sources[FILES], include)


def _paths(tree: dict[bytes, Thing], *include: str) -> list[bytes]:
    return [entry.path for entry in _selection(tree, *include).entries()]


@pytest.mark.parametrize(
    ("include", "paths"),
    [
        ([], list(TREE)),
        (["*.txt"], [b"", b"a.txt", b"docs", b"docs/deep", b"docs/deep/b.txt", b"docs.txt",
                     b"x\xff.txt"]),
        (["/*.txt"], [b"", b"a.txt", b"docs.txt", b"x\xff.txt"]),
        (["docs"], [b"", b"docs", b"docs/deep", b"docs/deep/b.txt", b"docs/deep/c.log",
                    b"docs/empty"]),
        (["docs/"], [b"", b"docs", b"docs/deep", b"docs/deep/b.txt", b"docs/deep/c.log",
                     b"docs/empty"]),
        (["deep/"], [b"", b"docs", b"docs/deep", b"docs/deep/b.txt", b"docs/deep/c.log"]),
        (["docs/**/*.log"], [b"", b"docs", b"docs/deep", b"docs/deep/c.log"]),
        (["*.txt", "!/docs.txt"], [b"", b"a.txt", b"docs", b"docs/deep", b"docs/deep/b.txt",
                                   b"x\xff.txt"]),
        (["*.png"], []),
    ],
)  # fmt: skip
def test_patterns_pick_entries_and_the_directories_above(
    include: list[str], paths: list[bytes]
) -> None:
    assert sorted(_paths(TREE, *include)) == sorted(paths)


def test_totals_are_those_of_the_entries() -> None:
    for include in ([], ["*.txt"], ["docs"]):
        selection = _selection(TREE, *include)
        entries = list(selection.entries())
        assert selection.totals() == (len(entries), sum(entry.size for entry in entries))


names = sampled_from([b"a", b"b", b"c"])
trees = dictionaries(
    lists(names, min_size=1, max_size=3).map(b"/".join),
    sampled_from([Thing(b"1"), Thing(b"22")]),
    max_size=8,
)


@settings(max_examples=60)
@given(files=trees, include=lists(sampled_from(["a", "b/", "/c", "a/b", "**/c", "!a/c"])))
def test_every_entry_comes_after_its_directories_and_once(
    files: dict[bytes, Thing], include: list[str]
) -> None:
    tree = {b"": DIRECTORY}
    for path in files:
        for depth in range(1, path.count(b"/") + 1):
            tree[b"/".join(path.split(b"/")[:depth])] = DIRECTORY
    tree.update({path: each for path, each in files.items() if path not in tree})

    paths = _paths(tree, *include)

    assert len(set(paths)) == len(paths)
    for number, path in enumerate(paths):
        above = [b"/".join(path.split(b"/")[:d]) for d in range(1, path.count(b"/") + 1)]
        assert all(each in paths[:number] for each in above)


# ---------------------------------------------------------------------- hard links


LINKED = {
    b"": DIRECTORY,
    b"a": DIRECTORY,
    b"a/one": Thing(b"content", meta={"mode": 7}),
    b"b": DIRECTORY,
    b"b/three": _hard(b"a/one"),
    b"b/two": _hard(b"a/one"),
    b"c": _hard(b"a/one"),
}


def _described(selection: Selection) -> dict[bytes, tuple[EntryKind, object]]:
    return {
        entry.path: (entry.kind, entry.meta.get("target"))
        for entry in selection.entries()
        if entry.kind is not EntryKind.DIRECTORY
    }


def test_a_link_whose_first_name_comes_too_stays_a_link() -> None:
    assert _described(_selection(LINKED, "a", "c")) == {
        b"a/one": (EntryKind.FILE, None),
        b"c": (EntryKind.HARDLINK, b"a/one"),
    }


def test_a_link_whose_first_name_stays_behind_becomes_the_file() -> None:
    selection = _selection(LINKED, "b", "c")

    assert _described(selection) == {
        b"b/three": (EntryKind.FILE, None),
        b"b/two": (EntryKind.HARDLINK, b"b/three"),
        b"c": (EntryKind.HARDLINK, b"b/three"),
    }
    contents = {entry.path: b"".join(map(bytes, pieces)) for entry, pieces in selection.contents()}
    assert contents[b"b/three"] == b"content"
    assert contents[b"b/two"] == b""


def test_a_link_to_nothing_is_damaged() -> None:
    tree = {b"": DIRECTORY, b"z": _hard(b"gone")}

    with pytest.raises(Damaged, match="z"):
        _paths(tree, "z")


# ---------------------------------------------------------------------- content


@settings(max_examples=20)
@given(
    sizes=lists(sampled_from([0, 1, 100, 70 * KIB, 900 * KIB]), max_size=10),
    taken=lists(integers(0, 3), min_size=10, max_size=10),
)
def test_content_goes_with_its_entry_even_where_it_is_not_all_taken(
    sizes: list[int], taken: list[int]
) -> None:
    tree = {
        b"%d" % number: Thing(random.Random(number).randbytes(size))
        for number, size in enumerate(sizes)
    }
    seen: list[Entry] = []

    for (entry, pieces), count in zip(_selection(tree).contents(), taken, strict=False):
        data = tree[entry.path].data
        if count == 3:
            assert b"".join(bytes(piece) for piece in pieces) == data
        else:
            some = b"".join(bytes(piece) for _, piece in zip(range(count), pieces, strict=False))
            assert data.startswith(some)
        seen.append(entry)

    assert [entry.path for entry in seen] == sorted(tree)


def test_every_chunk_of_an_entry_is_named() -> None:
    repository = new_repository()
    tree = {b"big": Thing(random.Random(1).randbytes(2_000_000)), b"dir": DIRECTORY}

    named = {entry.path: chunks for entry, chunks in _of(repository, tree).chunks()}

    reader = repository.reader()
    joined = b"".join(bytes(reader.read(chunk)) for chunk in named[b"big"])
    assert joined == tree[b"big"].data
    assert named[b"dir"] == []
