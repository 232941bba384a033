"""A snapshot can be looked into as it was, whatever its names are."""

from __future__ import annotations

import json
import os
import random

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, tuples

from kryonix_backup.browse.listing import filled, list_entries, read_entry
from kryonix_backup.errors import Damaged, ObjectMissing, SnapshotUnknown, UsageError
from kryonix_backup.model import MIB, Entry, EntryKind
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.testing.repositories import RecordingStore, back_up, new_repository, reopened
from kryonix_backup.testing.sources import MemorySource, Thing

BIG = random.Random(1).randbytes(3 * MIB)
DIRECTORY = Thing(kind=EntryKind.DIRECTORY, meta={"mode": 0o755})
THINGS = {
    b"": DIRECTORY,
    b"big": Thing(BIG, meta={"mode": 0o644, "mtime": 7}),
    b"caf\xc3\xa9": Thing(b"utf-8"),
    b"d": DIRECTORY,
    b"d/\xff\xfe": Thing(b"not utf-8"),
    b"d/empty": Thing(b""),
    b"d/hard": Thing(kind=EntryKind.HARDLINK, meta={"target": b"big"}),
    b"d/soft": Thing(kind=EntryKind.SYMLINK, meta={"target": b"\xff/x"}),
    b"d.txt": Thing(b"beside"),
    b"pipe": Thing(kind=EntryKind.FIFO),
    b"sparse": Thing(b"data", meta={"holes": [[0, 5], [7, 3]]}),
}


@pytest.fixture(scope="module")
def made() -> tuple[Repository, Snapshot]:
    repository = new_repository()
    return repository, back_up(repository, MemorySource(THINGS)).snapshot


def _cat(made: tuple[Repository, Snapshot], path: str) -> bytes:
    return b"".join(bytes(piece) for piece in read_entry(*made, path))


def _paths(made: tuple[Repository, Snapshot], path: str) -> list[str]:
    return [listed.path for listed in list_entries(*made, path)]


def test_everything_is_listed_in_order(made: tuple[Repository, Snapshot]) -> None:
    assert _paths(made, "") == [
        "files", "files/big", "files/café", "files/d", "files/d/empty", "files/d/hard",
        "files/d/soft", "files/d/\\xff\\xfe", "files/d.txt", "files/pipe", "files/sparse",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "count"),
    [("files", 11), ("files/", 11), ("/files", 11), ("files/d", 5), ("files/d/", 5),
     ("files/d.txt", 1), ("files/big", 1), ("files/café", 1)],
)  # fmt: skip
def test_a_path_lists_what_is_at_it_and_below(
    made: tuple[Repository, Snapshot], path: str, count: int
) -> None:
    assert len(_paths(made, path)) == count


@pytest.mark.parametrize(
    "path", ["file", "other", "files/x", "files/d/x", "files/bi", "files/big/x"]
)
def test_what_is_not_there_is_unknown(made: tuple[Repository, Snapshot], path: str) -> None:
    with pytest.raises(SnapshotUnknown, match="nothing at"):
        _paths(made, path)
    with pytest.raises(SnapshotUnknown, match="nothing at"):
        read_entry(*made, path)


def test_an_entry_says_what_it_is(made: tuple[Repository, Snapshot]) -> None:
    listed = {each.path: each.to_plain() for each in list_entries(*made)}

    assert json.loads(json.dumps(listed["files/big"])) == {
        "source": "files", "path": "files/big", "kind": "file", "size": 3 * MIB,
        "mode": "0644", "mtime_ns": 7,
    }  # fmt: skip
    assert listed["files/d/soft"]["target"] == "\\xff/x"
    assert listed["files/d/hard"]["target"] == "big"
    assert listed["files/sparse"]["size"] == 12
    assert "mode" not in listed["files/pipe"]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("files/big", BIG),
        ("files/café", b"utf-8"),
        ("files/" + os.fsdecode(b"d/\xff\xfe"), b"not utf-8"),
        ("files/d/empty", b""),
        ("files/d/hard", BIG),
        ("files/sparse", bytes(5) + b"da" + bytes(3) + b"ta"),
    ],
)
def test_content_comes_back(made: tuple[Repository, Snapshot], path: str, content: bytes) -> None:
    assert _cat(made, path) == content


@pytest.mark.parametrize("path", ["files", "files/d", "files/d/soft", "files/pipe"])
def test_only_files_have_content(made: tuple[Repository, Snapshot], path: str) -> None:
    with pytest.raises(UsageError, match="not a file"):
        read_entry(*made, path)


def test_parts_have_names_where_there_are_several() -> None:
    repository = new_repository()
    source = MemorySource({b"x": Thing(b"1")}, {b"x": Thing(b"2")}, names=["one", "two"])
    made = repository, back_up(repository, source, name="db").snapshot

    assert _paths(made, "") == ["db/one/x", "db/two/x"]
    assert _paths(made, "db/two") == ["db/two/x"]
    assert _cat(made, "db/two/x") == b"2"
    with pytest.raises(SnapshotUnknown):
        _paths(made, "db/three")


def test_a_source_that_held_nothing_lists_nothing() -> None:
    repository = new_repository()
    made = repository, back_up(repository, MemorySource({})).snapshot

    assert _paths(made, "") == []
    assert _paths(made, "files") == []


def test_damage_is_told_before_wrong_data_is_given() -> None:
    store = RecordingStore()
    snapshot = back_up(new_repository(store), MemorySource(THINGS)).snapshot
    for name in store.names("packs/"):
        hurt = store.copy()
        hurt.objects[name] = bytes(byte ^ 1 for byte in store.objects[name])
        with pytest.raises((Damaged, ObjectMissing), match="packs/"):
            _cat((reopened(hurt), snapshot), "files/big")


@given(
    ranges=lists(tuples(integers(0, 50), integers(1, 50)), max_size=8),
    cuts=lists(integers(1, 40), max_size=20),
)
def test_holes_are_filled_whatever_the_pieces_are(
    ranges: list[tuple[int, int]], cuts: list[int]
) -> None:
    """``ranges`` are lengths of data and of the hole after it."""
    whole, data, holes = b"", b"", []
    for number, (length, hole) in enumerate(ranges):
        piece = bytes([number + 1]) * length
        whole += piece
        data += piece
        holes.append([len(whole), hole])
        whole += bytes(hole)
    pieces = [data[sum(cuts[:n]) : sum(cuts[: n + 1])] for n in range(len(cuts))]
    pieces.append(data[sum(cuts) :])
    entry = Entry(b"f", EntryKind.FILE, len(whole), meta={"holes": holes})

    assert b"".join(bytes(each) for each in filled(entry, iter(pieces))) == whole
