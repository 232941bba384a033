"""The doubles of source and target keep what their ports promise."""

from __future__ import annotations

import pytest

from kryonix_backup.errors import RestoreError, SourceUnreadable
from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.source import Item, Size
from kryonix_backup.testing.sources import GivenContent, MemorySource, MemoryTarget, Thing, items_of

TREE = {
    b"a.txt": Thing(b"beside"),
    b"a/b": Thing(b"below", stamp=[1]),
    b"a": Thing(kind=EntryKind.DIRECTORY),
}


def _read(item: Item, size: int = 4) -> bytes:
    assert item.open is not None
    reader, whole, buffer = item.open(), b"", bytearray(size)
    while count := reader.readinto(memoryview(buffer)):
        whole += buffer[:count]
    assert reader.close() == item.entry
    return whole


def test_entries_come_in_the_order_of_a_tree() -> None:
    source = MemorySource(TREE, names=["tree"])

    items = list(items_of(source.dump("tree", None)))

    assert [item.entry.path for item in items] == [b"a", b"a/b", b"a.txt"]
    assert [_read(item) for item in items[1:]] == [b"below", b"beside"]
    assert source.opened == [b"a/b", b"a.txt"]
    assert source.measure("tree") == Size(3, 11)
    assert source.check()[0].passed
    assert (source.parts(), source.position()) == (("tree",), {})


def test_what_has_the_stamp_of_before_comes_back_unread() -> None:
    before = [Entry(b"a/b", EntryKind.FILE, 5, b"refs", stamp=[1]), Entry(b"z", EntryKind.FILE, 1)]

    items = list(items_of(MemorySource(TREE).dump("part-0", iter(before))))

    assert items[1] == Item(before[0])
    assert items[2].open is not None


@pytest.mark.parametrize("fails_at", [0, 3])
def test_a_thing_that_fails_says_so(fails_at: int) -> None:
    source = MemorySource({b"x": Thing(b"12345", fails_at=fails_at)})
    (item,) = items_of(source.dump("part-0", None))

    with pytest.raises(SourceUnreadable, match="x"):
        _read(item, size=2)


def _load(target: MemoryTarget, content: bytes) -> None:
    target.load(GivenContent([(Entry(b"x", EntryKind.FILE, len(content)), [content])]))


def test_a_target_changes_nothing_before_commit_and_goes_back() -> None:
    target = MemoryTarget()
    _load(target, b"old")
    target.commit()
    again = MemoryTarget()
    again.there = dict(target.there)
    _load(again, b"new")

    assert again.there[b"x"][1] == b"old"
    again.commit()
    assert again.there[b"x"][1] == b"new"
    again.roll_back()
    assert again.there[b"x"][1] == b"old"


def test_what_a_target_dropped_does_not_come_back() -> None:
    target = MemoryTarget()
    target.finish()

    with pytest.raises(RestoreError):
        target.roll_back()


def test_a_step_fails_once() -> None:
    target = MemoryTarget(commit=RestoreError("busy"))

    with pytest.raises(RestoreError, match="busy"):
        target.commit()
    target.commit()

    assert target.calls == ["commit"]
    assert target.compare([Entry(b"y", EntryKind.FILE, 0)])[0].path == "y"
