"""Which moments of a source can be restored: what its snapshots and its log lead to together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from kryonix_backup.errors import KryonixError
from kryonix_backup.model import ChainId, LogHeader, SnapshotId, SourceName
from kryonix_backup.repository.layout import log_name
from kryonix_backup.repository.log import fetched_ahead, list_segments, unbroken
from kryonix_backup.repository.log_reach import UNREADABLE, reach, shown_twice
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import Snapshot

_LEAST = timedelta(microseconds=1)
_NEVER = datetime.min.replace(tzinfo=UTC)  # before all others stands what is open
_FETCHERS = 16  # of heads, which are small: a store that is far away answers as many at once

Head = LogHeader | KryonixError


class Base(NamedTuple):
    """A snapshot that a log may lead on from: when it was taken, and where it stands in the log."""

    snapshot: SnapshotId
    time: datetime
    position: Mapping[str, Any]


class Range(NamedTuple):
    """Every moment from the one to the other, both of them included."""

    chain: ChainId
    start: datetime
    end: datetime


class Gap(NamedTuple):
    """Moments after ``start`` and before ``end`` that nothing leads to; None where it is open."""

    start: datetime | None
    end: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class ReadLog:
    """
    One source's log as far as it was read: the head of every segment, or why it does not open.

    ``lost`` names segments whose head opens and whose body does not; ``beyond`` says of a chain
    which number is missing before others that are there.
    """

    source: SourceName
    heads: Mapping[ChainId, Sequence[Head]]
    beyond: Mapping[ChainId, int]
    lost: dict[tuple[ChainId, int], KryonixError] = field(default_factory=dict)

    def chains(self) -> dict[ChainId, int]:
        """Every chain, oldest first, with the number of its segments."""
        return {chain: len(heads) for chain, heads in self.heads.items()}

    def header(self, chain: ChainId, number: int) -> LogHeader:
        """What a segment holds; raises what reading it raised."""
        head = self.heads[chain][number]
        if isinstance(head, KryonixError):
            raise head
        if number and (chain, number) in self.lost:  # an opening has no body that is replayed
            raise self.lost[chain, number]
        return head


@dataclass(frozen=True, slots=True)
class Restorable:
    """The moments of one source that can be restored, in order, and what is missing between."""

    source: SourceName
    ranges: tuple[Range, ...]
    gaps: tuple[Gap, ...]

    @property
    def needs_full(self) -> bool:
        """Whether only a full backup leads on from here."""
        return bool(self.gaps) and self.gaps[-1].end is None

    def holds(self, moment: datetime) -> bool:
        """Whether that moment can be restored."""
        return any(each.start <= moment <= each.end for each in self.ranges)

    def to_plain(self) -> dict[str, Any]:
        """The moments as JSON can say them."""
        return {
            "ranges": [
                {"chain": each.chain, "from": each.start.isoformat(), "to": each.end.isoformat()}
                for each in self.ranges
            ],
            "gaps": [
                {
                    "from": each.start.isoformat() if each.start else None,
                    "to": each.end.isoformat() if each.end else None,
                    "reason": each.reason,
                }
                for each in self.gaps
            ],
            "needs_full": self.needs_full,
        }


def read_log(
    source: SourceName,
    chains: Mapping[ChainId, Set[int]],
    read: Callable[[ChainId, int], LogHeader],
) -> ReadLog:
    """What ``read`` gives for every segment that follows the ones before it, of those there are."""

    def head(chain: ChainId, number: int) -> Head:
        try:
            return read(chain, number)
        except UNREADABLE as error:
            return error

    heads: dict[ChainId, list[Head]] = {}
    beyond: dict[ChainId, int] = {}
    for chain, numbers in chains.items():
        count = unbroken(numbers)
        heads[chain] = list(fetched_ahead(range(count), partial(head, chain), _FETCHERS))
        if len(numbers) > count:
            beyond[chain] = count
    return ReadLog(source, heads, beyond)


def moments_of(repository: Repository) -> dict[SourceName, Restorable]:
    """Which moments of each source with a log can be restored; every segment's head is read."""
    ids = repository.snapshot_ids()  # before the log is listed, which must not be the older one
    there = list_segments(repository.store)
    if not there:
        return {}
    snapshots = [each for each in map(repository.whole_snapshot, ids) if each is not None]
    return {
        source: restorable(
            read_log(source, chains, repository.log(source).header), bases_of(source, snapshots)
        )
        for source, chains in there.items()
    }


def bases_of(source: SourceName, snapshots: Iterable[Snapshot]) -> list[Base]:
    """What these snapshots, oldest first, hold of a source, and when it was that."""
    found = []
    for snapshot in snapshots:
        result = snapshot.sources.get(source)
        if result is None:
            continue
        position = result.position
        time = datetime.fromisoformat(position["time"]) if position else snapshot.finished
        found.append(Base(snapshot.id, time, position))
    return found


def restorable(
    log: ReadLog, bases: Sequence[Base], unsound: Set[SnapshotId] = frozenset()
) -> Restorable:
    """
    The moments that a restore ``--at`` leads to: from the newest snapshot before it, by the log.

    ``bases`` are in the order of their snapshots' ids, and those in ``unsound`` cannot be read.
    """
    stretches = list(_stretches(log, bases, unsound))
    ranges = _merged(stretch.range for stretch in stretches if stretch.range is not None)
    gaps = list(_gaps(log, stretches, ranges))
    for chain in {each.chain: None for each in ranges}:
        newest = next(head for head in reversed(log.heads[chain]) if isinstance(head, LogHeader))
        for first, last in shown_twice(newest):
            ranges, twice = _cut(ranges, chain, first, last)
            gaps += twice
    gaps.sort(key=lambda gap: gap.start or _NEVER)
    return Restorable(log.source, tuple(ranges), tuple(gaps))


class _Stretch(NamedTuple):
    """The moments for which one snapshot is taken, from ``start`` to before ``end``."""

    start: datetime
    end: datetime | None
    range: Range | None
    because: str


def _stretches(log: ReadLog, bases: Sequence[Base], unsound: Set[SnapshotId]) -> Iterator[_Stretch]:
    """In the order of time; a newer snapshot is always preferred to an older one."""
    taken: datetime | None = None
    found = []
    for base in reversed(bases):
        if taken is None or base.time < taken:
            found.append(_stretch(log, base, taken, base.snapshot in unsound))
            taken = base.time
    yield from reversed(found)


def _stretch(log: ReadLog, base: Base, end: datetime | None, damaged: bool) -> _Stretch:  # noqa: FBT001
    if damaged:
        return _Stretch(base.time, end, None, f"snapshot {base.snapshot} is damaged")
    if not base.position:
        reason = f"snapshot {base.snapshot} was made without a log"
        return _Stretch(base.time, end, None, reason)
    chain, to, because = reach(log, base.position, end)
    because = because or _end_of(log, chain)
    if to is not None and end is not None:
        to = min(to, end - _LEAST)
    if chain is None or to is None or to < base.time:
        return _Stretch(base.time, end, None, because)
    return _Stretch(base.time, end, Range(chain, base.time, to), because)


def _end_of(log: ReadLog, chain: ChainId | None) -> str:
    """Why nothing of a chain follows its last segment; empty where it may go on."""
    if chain is None:
        return _no_chain(log)
    if chain in log.beyond:
        return f"{log_name(log.source, chain, log.beyond[chain])} is missing"
    later = [each for each, heads in log.heads.items() if each > chain and heads]
    if not later:
        return ""
    opening = log.heads[later[0]][0]
    if isinstance(opening, KryonixError):
        return f"a new chain began, whose opening cannot be read: {opening.message}"
    return str(opening.meta.get("reason") or "a new chain began")


def _no_chain(log: ReadLog) -> str:
    for chain in reversed(list(log.heads)):
        if log.beyond.get(chain) == 0:
            return f"{log_name(log.source, chain, 0)} is missing"
        if (chain, 0) in log.lost:
            return log.lost[chain, 0].message
    return "no chain of the log goes on from it"


def _merged(ranges: Iterable[Range]) -> list[Range]:
    merged: list[Range] = []
    for each in ranges:
        if merged and merged[-1].chain == each.chain and merged[-1].end + _LEAST >= each.start:
            merged[-1] = merged[-1]._replace(end=max(merged[-1].end, each.end))
        else:
            merged.append(each)
    return merged


def _cut(
    ranges: Iterable[Range], chain: ChainId, first: datetime, last: datetime
) -> tuple[list[Range], list[Gap]]:
    """The ranges without times of a chain that nobody can tell apart, and the gaps they leave."""
    left, gaps = [], []
    for each in ranges:
        if each.chain != chain or last < each.start or each.end < first:
            left.append(each)
            continue
        start, end = max(first, each.start) - _LEAST, last + _LEAST
        gaps.append(Gap(start, end, "the clock of its server was set back: these times came twice"))
        parts = (each._replace(end=start), each._replace(start=end))
        left += [part for part in parts if part.start <= part.end]
    return left, gaps


def _gaps(log: ReadLog, stretches: Sequence[_Stretch], ranges: Sequence[Range]) -> Iterator[Gap]:
    """Before, between and after the ranges, where it is known what is missing."""
    if not stretches:
        if any(log.heads.values()):
            yield Gap(None, None, "no snapshot leads into the log")
        return
    end, after = stretches[0].start, stretches[0].start  # the end of a range, and what follows it
    for each in ranges:
        if after < each.start:
            reason = next(_reasons(stretches, after), "") or "the log had not come so far"
            yield Gap(end, each.start, reason)
        end, after = each.end, each.end + _LEAST
    reason = next(_reasons(stretches, after), "")
    if reason:
        yield Gap(end, None, reason)


def _reasons(stretches: Sequence[_Stretch], moment: datetime) -> Iterator[str]:
    """What stops a restore at that moment, and what those after it, where something does."""
    for each in stretches:
        if (each.end is None or each.end > moment) and each.because:
            yield each.because
