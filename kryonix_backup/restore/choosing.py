"""
From which snapshot a source with a log is best brought back to a moment.

Any snapshot from before it leads there, with what its log holds from there on, and all to the same
rows; they differ in how long it takes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from kryonix_backup.errors import (
    Damaged,
    KryonixError,
    ObjectMissing,
    SnapshotUnknown,
    TimeUnreachable,
)
from kryonix_backup.model import BackupKind, Phase, SourceName
from kryonix_backup.repository.log import LogBook
from kryonix_backup.repository.log_reach import first_after
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import Snapshot, SourceResult
from kryonix_backup.restore.log_range import LogRange, find_range
from kryonix_backup.restore.selection import Selection
from kryonix_backup.sources.cost import Load
from kryonix_backup.sources.source import folded_segment

log = logging.getLogger(__name__)

_MOST_REFUSED = 4  # snapshots in a row that lead nowhere: older ones will not either


class Way(NamedTuple):
    """A snapshot, the log to replay on top, and how long that takes."""

    snapshot: Snapshot
    source: SourceResult
    log: LogRange | None
    seconds: float

    @property
    def shown(self) -> str:
        """What it consists of, for people."""
        return f"{_shown(self.snapshot, self.source, self.log)}: about {self.seconds:.1f} s"


class Chosen(NamedTuple):
    """The best way, and why it is that."""

    way: Way
    why: str


def load_of(source: SourceResult, replayed: LogRange | None) -> Load:
    """What is loaded and replayed of a source that comes back whole."""
    return load_with(source, source.entries, source.bytes_total, replayed)


def load_with(source: SourceResult, entries: int, size: int, replayed: LogRange | None) -> Load:
    """The same of so many of its entries."""
    folded = folded_segment(source.position)
    return Load(
        entries,
        size,
        changes=replayed.changes if replayed else 0,
        folded=folded.changes if folded else 0,
        segments=replayed.segments if replayed else 0,
    )


def choose(repository: Repository, name: SourceName, at: datetime, phase: Phase) -> Chosen:
    """
    The way that takes the least time by estimate, of those whose content is all there.

    Raises TimeUnreachable where none leads there, Damaged or ObjectMissing where none is whole.
    """
    return _Choosing(repository, name, at, phase).run()


class _Choosing:
    """One source, one moment."""

    def __init__(
        self, repository: Repository, name: SourceName, at: datetime, phase: Phase
    ) -> None:
        self._repository = repository
        self._name = name
        self._at = at
        self._phase = phase
        self._book: LogBook = repository.log(name)
        self._others: list[str] = []
        self._refused: KryonixError | None = None

    def run(self) -> Chosen:
        best: Way | None = None
        kinds: set[str] = set()
        refused = 0
        for snapshot, source in self._before():
            kind = kind_of(source)
            if kind in kinds:
                continue
            try:
                way = self._way(snapshot, source, best)
            except (TimeUnreachable, Damaged, ObjectMissing) as error:
                self._refuse(snapshot, error)
                refused += 1
                if refused == _MOST_REFUSED:
                    break
                continue
            kinds.add(kind)
            if way is not None:
                best = self._better(best, way)
            if kind == BackupKind.FULL.value:
                break  # an older one has only more to replay
        if best is None:
            raise self._refused or SnapshotUnknown(
                f"no snapshot of {self._name} is as old as {self._at.isoformat()}"
            )
        return Chosen(best, "; ".join([best.shown, *self._others]))

    def _before(self) -> Iterator[tuple[Snapshot, SourceResult]]:
        """Every snapshot of the source from before the moment that its log goes on from."""
        for snapshot_id in reversed(self._repository.snapshot_ids()):
            snapshot = self._repository.whole_snapshot(snapshot_id)
            source = snapshot.sources.get(self._name) if snapshot is not None else None
            if snapshot is None or source is None or not source.position:
                continue
            if datetime.fromisoformat(source.position["time"]) <= self._at:
                yield snapshot, source

    def _way(self, snapshot: Snapshot, source: SourceResult, best: Way | None) -> Way | None:
        """None where it cannot be better than the best so far, which may be much to read."""
        if best is not None and best.log is not None:
            least = self._least(source, best.log)
            if least >= best.seconds:
                self._others.append(
                    f"from {kind_of(source)} {snapshot.id} it is at least {least:.1f} s"
                )
                return None
        replayed = find_range(self._book, source.position, self._at)
        self._check_whole(source)
        seconds = load_of(source, replayed).seconds(self._phase)
        return Way(snapshot, source, replayed, round(seconds, 1))

    def _least(self, source: SourceResult, best: LogRange) -> float:
        """How long it takes at least: its segments are counted, and what is in them is not."""
        first = first_after(self._book, best.chain, best.last + 1, source.position["at"])
        segments = best.last - first + 1
        return load_of(source, None)._replace(segments=segments).seconds(self._phase)

    def _check_whole(self, source: SourceResult) -> None:
        there, index = self._repository.present_packs(), self._repository.load_index()
        for entry, chunks in Selection(self._repository, source, ()).chunks():
            for chunk in chunks:
                if not index.is_in(chunk, there):
                    raise Damaged(f"chunk {chunk.hex()} of {source.name}/{entry.text} is missing")

    def _better(self, best: Way | None, way: Way) -> Way:
        if best is None:
            return way
        if way.seconds < best.seconds:
            best, way = way, best
        self._others.append(way.shown)
        return best

    def _refuse(self, snapshot: Snapshot, error: KryonixError) -> None:
        log.warning("snapshot %s does not lead to that time: %s", snapshot.id, error.message)
        self._others.append(f"{snapshot.id} does not lead there: {error.message}")
        self._refused = self._refused or error


def kind_of(source: SourceResult) -> str:
    """Whether a source was read whole, or folded from its log."""
    folded = folded_segment(source.position)
    return (BackupKind.FULL if folded is None else BackupKind.INCREMENTAL).value


def _shown(snapshot: Snapshot, source: SourceResult, replayed: LogRange | None) -> str:
    folded = folded_segment(source.position)
    held = f" with {folded.changes:,} changes" if folded else ""
    then = f" and {replayed.changes:,} changes of the log" if replayed else ""
    return f"from {kind_of(source)} {snapshot.id}{held}{then}"
