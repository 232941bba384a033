"""
Following a source's transaction log: every segment is durable before the source may drop it.

Where the source has lost a part of its log, a new chain begins at once; what was committed in
between can only be restored from a full backup, which the report asks for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain as joined
from typing import Any, NamedTuple

from kryonix_backup.clock import Clock
from kryonix_backup.errors import Damaged, KryonixError, LogBroken, ObjectMissing, SourceError
from kryonix_backup.model import MIB, ChainId, LogHeader, SourceName, moment_of, new_run_id
from kryonix_backup.repository.log import MOST_BODY_BYTES, LogBook, Spill, last_header
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sources.source import LogPiece, LogSource, LogStream

log = logging.getLogger(__name__)

_SPILL_BYTES = 4 * MIB
_SKEW_S = 1.0  # that two clocks may differ by, unsaid


class Pace(NamedTuple):
    """A segment at least every so many seconds, until ``until`` says so."""

    every: float
    until: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class LogReport:
    """
    What was kept of a source's log, in one run.

    ``restorable`` is the newest moment that the chain leads to, and ``age_s`` how long ago it was
    by this machine's clock, None where that is behind. ``gap`` says from when on something was
    lost, and why; ``broken`` what happened that cannot be replayed.
    """

    source: SourceName
    chain: ChainId
    segments: int
    commits: int
    changes: int
    bytes_read: int
    restorable: datetime | None
    age_s: float | None
    gap: Mapping[str, Any] | None
    broken: tuple[str, ...]

    @property
    def needs_full(self) -> bool:
        """Whether only a full backup leads on from here."""
        return self.gap is not None or bool(self.broken)

    def to_plain(self) -> dict[str, Any]:
        """The report as the command prints it with --json."""
        return {
            "source": self.source,
            "chain": self.chain,
            "segments": self.segments,
            "commits": self.commits,
            "changes": self.changes,
            "bytes_read": self.bytes_read,
            "restorable": self.restorable.isoformat() if self.restorable else None,
            "age_s": self.age_s,
            "gap": dict(self.gap) if self.gap else None,
            "broken": list(self.broken),
            "needs_full": self.needs_full,
        }


def quiet_log(_report: LogReport) -> None:
    """Tell nobody."""


def open_log(book: LogBook, source: LogSource, clock: Clock) -> tuple[LogHeader, LogHeader]:
    """The opening and the last segment of the newest chain, which begins now where none is."""
    found = last_header(book)
    if found is None:
        opening = begin_chain(book, source, clock, {})
        return opening, opening
    return found


def begin_chain(
    book: LogBook, source: LogSource, clock: Clock, meta: Mapping[str, Any], *, renew: bool = False
) -> LogHeader:
    """
    A new chain, after all others of this source; ``meta`` says why an earlier one ended.

    Raises what `LogSource.new_chain` does.
    """
    opening = source.new_chain(renew=renew)
    now = clock.now()
    newest = max(book.chains(), default=None)
    if newest is not None and now <= moment_of(newest):
        # Chains must sort in the order they began even where a clock was set back.
        now = moment_of(newest) + timedelta(seconds=1)
    chain = ChainId(new_run_id(now))
    opening = opening._replace(chain=chain, number=0, meta={**opening.meta, **meta})
    book.append(opening, b"")
    return opening


def follow_log(
    repository: Repository,
    name: SourceName,
    source: LogSource,
    clock: Clock,
    pace: Pace,
    tell: Callable[[LogReport], None] = quiet_log,
) -> LogReport:
    """
    Keep a source's log until ``pace`` says so.

    ``tell`` hears when it begins to be followed, and of every segment once it is durable.

    Raises AlreadyRunning where another process follows it, SourceUnprepared, and LogBroken where
    the log is lost again before a new chain has got anything. A chain whose opening or last segment
    is damaged is given up, as one is that the source has lost a part of.
    """
    return _Following(repository, name, source, clock, tell).run(pace)


def drain_log(
    repository: Repository, name: SourceName, source: LogSource, clock: Clock
) -> LogReport:
    """Keep everything that was committed before this was called."""
    return follow_log(repository, name, source, clock, Pace(float("inf"), lambda: True))


class _Following:
    """One run."""

    def __init__(
        self,
        repository: Repository,
        name: SourceName,
        source: LogSource,
        clock: Clock,
        tell: Callable[[LogReport], None],
    ) -> None:
        self._repository = repository
        self._book = repository.log(name)
        self._source = source
        self._clock = clock
        self._tell = tell
        self._segments = self._commits = self._changes = self._bytes = 0
        self._gap: dict[str, Any] | None = None
        self._broken: list[str] = []
        self._restorable: datetime | None = None

    def run(self, pace: Pace) -> LogReport:
        """Follow, over as many chains as it takes."""
        try:
            self._opening, self._last = open_log(self._book, self._source, self._clock)
            self._restorable = newest_restorable(self._book, self._last)
        except Damaged as error:
            # Nothing can be written after a segment that does not open, and the source keeps what
            # follows only so long.
            self._restorable = _newest_known(self._book)
            self._begin_anew(error)
        while True:
            before = self._segments
            try:
                with self._source.follow(self._opening, self._last) as stream:
                    self._tell(self._report())
                    self._keep_all(stream, pace)
                return self._report()
            except LogBroken as error:
                if self._gap is not None and self._segments == before:
                    raise
                self._begin_anew(error)

    def _begin_anew(self, error: KryonixError) -> None:
        log.warning("%s; a new chain begins", error.message)
        lost = self._restorable
        gap = {"gap_from": lost.isoformat() if lost else None, "reason": error.message}
        self._gap = self._gap or gap
        # One that was prepared anew keeps its log from before the full backup that came after.
        renew = not (isinstance(error, LogBroken) and error.prepared_anew)
        self._opening = self._last = begin_chain(
            self._book, self._source, self._clock, gap, renew=renew
        )
        self._restorable = None

    def _keep_all(self, stream: LogStream, pace: Pace) -> None:
        pieces = stream.pieces(pace.until, pace.every)
        for piece in pieces:
            if piece.header is not None and len(piece.body) <= MOST_BODY_BYTES:
                header, size = self._numbered(piece.header), len(piece.body)
                self._book.append(header, piece.body)
            else:
                header, size = self._keep_long(piece, pieces)
            # Only now is it durable: a source that was told so earlier would drop it.
            stream.confirm(header.end)
            self._count(header, size)
            self._tell(self._report())

    def _keep_long(self, first: LogPiece, more: Iterator[LogPiece]) -> tuple[LogHeader, int]:
        """A segment too long for one object: its chunks are durable before it names them."""
        size = 0
        with self._repository.writer() as writer:
            spill = Spill(writer)
            for piece in joined((first,), more):
                size += len(piece.body)
                for start in range(0, len(piece.body), _SPILL_BYTES):
                    spill.add(piece.body[start : start + _SPILL_BYTES])
                if piece.header is not None:
                    break
            else:
                raise SourceError(f"the log of {self._book.source} ended inside a transaction")
        header = self._numbered(piece.header)
        self._book.append(header, b"", spill.close())
        return header, size

    def _numbered(self, header: LogHeader) -> LogHeader:
        return header._replace(chain=self._opening.chain, number=self._last.number + 1)

    def _count(self, header: LogHeader, size: int) -> None:
        if header.meta.get("twice") != self._last.meta.get("twice"):
            log.warning(
                "the clock of %s's server was set back; no time from %s to %s can be restored",
                self._book.source,
                *header.meta["twice"][-1],
            )
        self._last = header
        self._segments += 1
        self._commits += header.commits
        self._changes += header.changes
        self._bytes += size
        self._restorable = header.restorable or self._restorable
        if header.broken:
            log.warning("the log of %s cannot be replayed: %s", self._book.source, header.broken)
            self._broken.append(header.broken)

    def _report(self) -> LogReport:
        age = None
        if self._restorable is not None:
            age = round((self._clock.now() - self._restorable).total_seconds(), 3)
            if age < -_SKEW_S:
                log.warning(
                    "this machine's clock is %.0f seconds behind that of %s's server, so that ages"
                    " are not known",
                    -age,
                    self._book.source,
                )
                age = None
        return LogReport(
            self._book.source,
            self._opening.chain,
            self._segments,
            self._commits,
            self._changes,
            self._bytes,
            self._restorable,
            age,
            self._gap,
            tuple(self._broken),
        )


def newest_restorable(book: LogBook, last: LogHeader) -> datetime | None:
    """The newest moment that a chain leads to, whose last segment this is."""
    return last.restorable or _newest_of(book, last.chain, last.number)


def _newest_of(book: LogBook, chain: ChainId, count: int) -> datetime | None:
    """The newest moment that a chain's first segments lead to, as far as they can be read."""
    for number in reversed(range(count)):
        try:
            header = book.header(chain, number)
        except (Damaged, ObjectMissing):
            continue
        if header.restorable is not None:
            return header.restorable
    return None


def _newest_known(book: LogBook) -> datetime | None:
    moments = (_newest_of(book, chain, count) for chain, count in reversed(book.chains().items()))
    return next((moment for moment in moments if moment is not None), None)
