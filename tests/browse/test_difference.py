"""A difference is what comparing every entry by hand would give."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis.strategies import builds, dictionaries, sampled_from

from kryonix_backup.browse.difference import Change, diff
from kryonix_backup.model import EntryKind, sort_key
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import RecordingStore, back_up, new_repository, reopened
from kryonix_backup.testing.sources import MemorySource, Thing

paths = sampled_from([b"", b"a", b"a/b", b"a/c", b"a.txt", b"b\xff", b"c", b"d/e/f"])
things = builds(
    Thing,
    sampled_from([b"", b"one", b"two", b"x" * 1000]),
    sampled_from([EntryKind.FILE, EntryKind.SYMLINK, EntryKind.DIRECTORY]),
    sampled_from([{}, {"mode": 1}, {"target": b"x"}, {"target": b"y"}]),
)
trees = dictionaries(paths, things, max_size=8)


def _snapshot(repository: Repository, tree: Mapping[bytes, Thing], day: int = 0) -> Snapshot:
    clock = FixedClock(NOON + timedelta(days=day))
    return back_up(repository, MemorySource(tree), clock=clock).snapshot


def _naive(one: Mapping[bytes, Thing], two: Mapping[bytes, Thing]) -> list[Change]:
    changes = []
    for path in sorted({*one, *two}, key=sort_key):
        before, after = one.get(path), two.get(path)
        status = _status(before, after)
        if status:
            shown = "files/" + path.decode("utf-8", "backslashreplace") if path else "files"
            sizes = [len(each.data) if each else None for each in (before, after)]
            changes.append(Change(status, "files", shown, sizes[0], sizes[1]))
    return changes


def _status(one: Thing | None, two: Thing | None) -> str | None:
    if one is None or two is None:
        return "added" if one is None else "removed"
    data_one, data_two = (each.data if each.kind is EntryKind.FILE else b"" for each in (one, two))
    sizes = len(one.data) == len(two.data)
    same = (one.kind, data_one, one.meta.get("target")) == (
        two.kind, data_two, two.meta.get("target"),
    )  # fmt: skip
    if not same or not sizes:
        return "modified"
    return None if one.meta == two.meta else "metadata"


@settings(max_examples=60)
@given(one=trees, two=trees)
def test_a_difference_is_that_of_every_entry(
    one: dict[bytes, Thing], two: dict[bytes, Thing]
) -> None:
    repository = new_repository()
    a, b = _snapshot(repository, one), _snapshot(repository, two, day=1)

    assert list(diff(repository, a, b)) == _naive(one, two)
    assert list(diff(repository, a, a)) == []


def _many(count: int) -> dict[bytes, Thing]:
    return {b"%06d" % number: Thing(kind=EntryKind.DIRECTORY) for number in range(count)}


def test_leaves_that_both_share_are_not_read() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    one = _many(20_000)
    two = {**one, b"010000": Thing(b"now a file")}
    a, b = _snapshot(repository, one), _snapshot(repository, two, day=1)
    counting = FaultyStore(store)

    changes = list(diff(reopened(counting), a, b))

    assert [(change.status, change.path) for change in changes] == [("modified", "files/010000")]
    assert len([1 for method, _ in counting.calls if method == "get_range"]) < 20


def test_a_hole_that_moved_is_a_change_of_content() -> None:
    repository = new_repository()
    a = _snapshot(repository, {b"f": Thing(b"data", meta={"holes": [[0, 4096]]})})
    b = _snapshot(repository, {b"f": Thing(b"data", meta={"holes": [[4, 4096]]})}, day=1)

    assert [change.status for change in diff(repository, a, b)] == ["modified"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_source_or_a_part_that_is_in_one_only_is_added_or_removed(order: int) -> None:
    repository = new_repository()
    one = MemorySource({b"x": Thing(b"1")}, names=["one"])
    two = MemorySource({b"x": Thing(b"1")}, {b"y": Thing(b"2")}, names=["one", "two"])
    a = back_up(repository, one, name="db").snapshot
    b = back_up(repository, two, name="db", clock=FixedClock(NOON + timedelta(days=1))).snapshot
    c = back_up(repository, one, name="other").snapshot
    added = "added" if order == 1 else "removed"

    parts = diff(repository, *(a, b)[::order])
    sources = diff(repository, *(a, c)[::order])

    assert [(change.status, change.path) for change in parts] == [(added, "db/two/y")]
    assert {(change.status, change.path) for change in sources} == {
        ("added", "other/x" if order == 1 else "db/x"),
        ("removed", "db/x" if order == 1 else "other/x"),
    }


def test_a_change_is_said_as_json() -> None:
    assert Change("added", "files", "files/a", None, 7).to_plain() == {
        "status": "added", "source": "files", "path": "files/a", "size_a": None, "size_b": 7,
    }  # fmt: skip
