"""Which part of a source's transaction log leads from a snapshot to a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from kryonix_backup.errors import TimeUnreachable
from kryonix_backup.model import ChainId, LogHeader
from kryonix_backup.repository.log import Heads, headers_of
from kryonix_backup.repository.log_reach import (
    UNREADABLE,
    find_start,
    in_order,
    shown_twice,
    stopped_from,
)


@dataclass(frozen=True, slots=True)
class LogRange:
    """Segments ``first`` to ``last`` of a chain, replayed to the first commit after ``until``."""

    chain: ChainId
    first: int
    last: int
    until: datetime
    commits: int
    changes: int

    @property
    def segments(self) -> int:
        """How many there are."""
        return self.last - self.first + 1

    def to_plain(self) -> dict[str, Any]:
        """The range as JSON can say it."""
        return {**asdict(self), "until": self.until.isoformat()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """A range out of `to_plain`'s form."""
        return cls(**{**plain, "until": datetime.fromisoformat(plain["until"])})


def find_range(book: Heads, position: Mapping[str, Any], until: datetime) -> LogRange:
    """
    The segments to replay on a snapshot whose source stood at ``position``.

    Counts may hold a little more than is replayed: they are of whole segments. Raises
    TimeUnreachable where the log ends, has a gap, or cannot be replayed before that moment, and
    where the source's clock has shown it twice; Damaged where a segment that is needed is not what
    it was.
    """
    start = find_start(book, position)
    if start is None:
        raise TimeUnreachable(
            f"no log of {book.source} goes on from the snapshot of {position['time']} to"
            f" {until.isoformat()}",
            "Restore the snapshot itself with --snapshot, or run 'kryonix source prepare' and"
            " back up.",
        )
    chain, first, count = start
    _refuse_twice(book, chain, count, until)
    commits = changes = 0
    newest: datetime | None = None
    for header in in_order(headers_of(book, chain, first, count)):
        stop = stopped_from(header, position["at"])
        if stop is not None and stop <= until:
            raise TimeUnreachable(
                f"the log of {book.source} cannot be replayed to {until.isoformat()}:"
                f" {header.broken}",
                "Choose a time before it, or one after the next full backup.",
            )
        commits += header.commits
        changes += header.changes
        newest = header.restorable or newest
        if header.restorable is not None and header.restorable >= until:
            return LogRange(chain, first, header.number, until, commits, changes)
    ends = newest.isoformat() if newest else "the snapshot itself"
    raise TimeUnreachable(
        f"the log of {book.source} does not reach {until.isoformat()}; it ends at {ends}",
        f"Restore to {ends} or earlier; 'kryonix backup ID --kind log' fetches what the source"
        " has since.",
    )


def leads_to(book: Heads, position: Mapping[str, Any]) -> datetime | None:
    """The newest moment that the log goes on to from there, if it does; reads a head or two."""
    start = find_start(book, position)
    if start is None:
        return None
    try:
        newest = _newest_readable(book, start[0], start[2]).restorable
    except UNREADABLE:
        return None
    since = datetime.fromisoformat(position["time"])
    return newest if newest is not None and newest > since else None


def _refuse_twice(book: Heads, chain: ChainId, count: int, until: datetime) -> None:
    for first, newest in shown_twice(_newest_readable(book, chain, count)):
        if first <= until <= newest:
            raise TimeUnreachable(
                f"{until.isoformat()} was there twice: the clock of {book.source}'s server was set"
                f" back, from {newest.isoformat()} to {first.isoformat()}",
                f"Choose a time before {first.isoformat()} or after {newest.isoformat()}, or a"
                " snapshot with --snapshot.",
            )


def _newest_readable(book: Heads, chain: ChainId, count: int) -> LogHeader:
    for number in reversed(range(1, count)):
        try:
            return book.header(chain, number)
        except UNREADABLE:
            continue
    return book.header(chain, 0)
