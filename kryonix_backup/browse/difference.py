"""What changed between two snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kryonix_backup.model import ChunkId, Entry, sort_key
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import PartResult, Snapshot, SourceResult
from kryonix_backup.repository.tree import TreeReader

ADDED = "added"
REMOVED = "removed"
MODIFIED = "modified"
METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that differs; a size is None on the side where it is not there."""

    status: str
    source: str
    path: str
    size_a: int | None
    size_b: int | None

    def to_plain(self) -> dict[str, Any]:
        """The change as JSON can say it."""
        return {
            "status": self.status,
            "source": self.source,
            "path": self.path,
            "size_a": self.size_a,
            "size_b": self.size_b,
        }


def diff(repository: Repository, a: Snapshot, b: Snapshot) -> Iterator[Change]:
    """
    Every entry that differs from ``a`` to ``b``, source by source, in order of path.

    Leaves that both trees share are not read.
    """
    for name in sorted({*a.sources, *b.sources}):
        old, new = a.sources.get(name), b.sources.get(name)
        parts = sorted({part.name for side in (old, new) if side for part in side.parts})
        for part in parts:
            yield from _part(repository, (old, _named(old, part)), (new, _named(new, part)))


_Side = tuple[SourceResult | None, PartResult | None]


def _part(repository: Repository, old: _Side, new: _Side) -> Iterator[Change]:
    reader = repository.reader()
    trees = [repository.tree(part.root, reader) if part else None for _, part in (old, new)]
    shared = _leaves(trees[0]) & _leaves(trees[1])
    left, right = (_unshared(tree, shared) for tree in trees)
    one, two = next(left, None), next(right, None)
    while one is not None or two is not None:
        if two is None or (one is not None and sort_key(one.path) < sort_key(two.path)):
            assert one is not None  # the loop's condition
            yield _change(REMOVED, old, one, None)
            one = next(left, None)
        elif one is None or sort_key(two.path) < sort_key(one.path):
            yield _change(ADDED, new, None, two)
            two = next(right, None)
        else:
            if _content(one) != _content(two):
                yield _change(MODIFIED, new, one, two)
            elif one.meta != two.meta:
                yield _change(METADATA, new, one, two)
            one, two = next(left, None), next(right, None)


def _content(entry: Entry) -> tuple[Any, ...]:
    meta = entry.meta
    return (entry.kind, entry.size, entry.refs, meta.get("holes"), meta.get("target"))


def _change(status: str, side: _Side, one: Entry | None, two: Entry | None) -> Change:
    source, part = side
    entry = one or two
    if source is None or part is None or entry is None:
        raise AssertionError("a change has a side that has entries")
    return Change(
        status,
        source.name,
        source.shown(part, entry.path),
        one.size if one else None,
        two.size if two else None,
    )


def _named(source: SourceResult | None, part: str) -> PartResult | None:
    return next((each for each in source.parts if each.name == part), None) if source else None


def _leaves(tree: TreeReader | None) -> set[ChunkId]:
    return set(tree.leaves()) if tree else set()


def _unshared(tree: TreeReader | None, shared: set[ChunkId]) -> Iterator[Entry]:
    for leaf in tree.leaves() if tree else ():
        if leaf not in shared:
            yield from tree.leaf(leaf)  # type: ignore[union-attr]  # no leaves without a tree
