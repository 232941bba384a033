"""How far a source's transaction log leads from the place at which a snapshot stands in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from kryonix_backup.errors import Damaged, KryonixError, ObjectMissing, RepositoryError
from kryonix_backup.model import ChainId, LogHeader
from kryonix_backup.repository.log import Heads

_EVERY_MOMENT = datetime.min.replace(tzinfo=UTC)
_LEAST = timedelta(microseconds=1)
UNREADABLE = (RepositoryError, ObjectMissing)


class Start(NamedTuple):
    """The segment with which a replay begins, and how many segments its chain has."""

    chain: ChainId
    first: int
    segments: int


class Reach(NamedTuple):
    """
    The last moment that a log leads to; None where it leads to none, or no chain goes on.

    ``because`` says what stops it there; it is empty where the chain merely ends, or where none is.
    """

    chain: ChainId | None
    to: datetime | None
    because: str


def find_start(heads: Heads, position: Mapping[str, Any]) -> Start | None:
    """
    Where a replay on a snapshot begins that stood at ``position``; None where no chain goes on.

    It is in the newest chain that does. One whose opening cannot be read is passed over, and what
    reading it raised is raised where no other chain holds that place.
    """
    unread: KryonixError | None = None
    at = position["at"]
    for chain, count in reversed(heads.chains().items()):
        if not count:
            continue
        try:
            opening = heads.header(chain, 0)
        except UNREADABLE as error:
            unread = unread or error
            continue
        if opening.meta.get("log") == position["log"] and opening.start <= at:
            if unread is not None and heads.header(chain, count - 1).end < at:
                raise unread
            return Start(chain, first_after(heads, chain, count, at), count)
    if unread is not None:
        raise unread
    return None


def first_after(heads: Heads, chain: ChainId, count: int, at: int) -> int:
    """The first segment that holds something after the place ``at``, by bisection."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        header = _readable(heads, chain, middle, high)
        if header is None or (header.end > at and not middle < header.number):
            high = middle
        elif header.end <= at:
            low = min(header.number + 1, high)
        elif header.start <= at:
            return header.number
        else:
            high = middle
    return low


def _readable(heads: Heads, chain: ChainId, number: int, last: int) -> LogHeader | None:
    """The first head from there on that opens; what a damaged one held is not always needed."""
    for each in range(number, last + 1):
        try:
            return heads.header(chain, each)
        except UNREADABLE:
            continue
    return None


def stopped_from(header: LogHeader, at: int) -> datetime | None:
    """
    From which moment on a segment stops a replay that began at the place ``at``.

    None where it does not: it holds nothing that cannot be replayed, or a full backup was made
    since.
    """
    if not header.broken:
        return None
    first, last = header.meta.get("broken_from"), header.meta.get("broken_to")
    if first is None or last is None:
        return _EVERY_MOMENT  # it began somewhere before it was noticed
    if last < at:
        return None
    if first < at:
        return _EVERY_MOMENT
    return datetime.fromisoformat(header.meta["broken_at"])


def shown_twice(newest: LogHeader) -> list[tuple[datetime, datetime]]:
    """
    The first and the last of all times that the source's clock has shown twice, in order.

    ``newest`` is the newest segment of a chain whose head opens: those before know less of it.
    """
    told: Sequence[Sequence[str]] = newest.meta.get("twice", ())
    return [(datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in told]


def in_order(headers: Iterable[LogHeader]) -> Iterator[LogHeader]:
    """The same; raises Damaged where one does not begin where the one before it ends."""
    before: LogHeader | None = None
    for header in headers:
        if before is not None and header.start != before.end:
            raise Damaged(
                f"segment {header.number} of chain {header.chain} begins at {header.start}, and the"
                f" one before it ends at {before.end}"
            )
        before = header
        yield header


def reach(heads: Heads, position: Mapping[str, Any], enough: datetime | None = None) -> Reach:
    """
    How far the log leads from a snapshot that stood at ``position``: as a restore would go.

    Nobody looks beyond ``enough``.
    """
    try:
        start = find_start(heads, position)
    except UNREADABLE as error:
        return Reach(None, None, error.message)
    if start is None:
        return Reach(None, None, "")
    numbers = range(start.first, start.segments)
    walk = _Walk(position["at"], enough)
    try:
        for header in in_order(heads.header(start.chain, number) for number in numbers):
            if walk.ends_with(header):
                break
    except UNREADABLE as error:
        walk.because = walk.because or error.message
    return Reach(start.chain, walk.newest, walk.because)


class _Walk:
    """How far it was come, over the segments from a snapshot on."""

    def __init__(self, at: int, enough: datetime | None) -> None:
        self.newest: datetime | None = None
        self.because = ""
        self._at = at
        self._enough = enough
        self._limit: datetime | None = None

    def ends_with(self, header: LogHeader) -> bool:
        """Take the next segment; whether none after it matters."""
        stop = stopped_from(header, self._at)
        if stop is not None and (self._limit is None or stop < self._limit):
            self._limit, self.because = stop, header.broken
        if self._limit == _EVERY_MOMENT:
            return True
        if header.restorable is None:
            return False
        last = header.restorable
        if self._limit is not None:
            last = min(last, self._limit - _LEAST)
        self.newest = last if self.newest is None else max(self.newest, last)
        return self._enough is not None and self.newest >= self._enough
