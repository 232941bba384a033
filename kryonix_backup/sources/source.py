"""
The port through which the engine sees a service of a tenant, in both directions.

A source is dumped in *parts*; a part is a sequence of *items* in the order of `sort_key`, or in the
order of its server where it says so. An item is an entry and, where there is new content to read, a
way to open it. What dumps also loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from kryonix_backup.model import Blob, ChainId, Entry, LogHeader, Problem


class Reader(Protocol):
    """The content of one entry, read once from start to end."""

    def readinto(self, view: memoryview) -> int:
        """Fill a part of ``view``; how many bytes, 0 at the end. Raises SourceUnreadable."""
        ...

    def close(self) -> Entry:
        """
        Let go, and say how the entry is to be recorded, now that it was read.

        Content and size are filled in by the engine. Raises SourceUnreadable when what was read
        cannot stand for the entry at all.
        """
        ...


class Item(NamedTuple):
    """
    One entry of a dump.

    With ``open`` the content is read and cut anew; without it the entry stands as it is, with the
    content it already names (unchanged since the last snapshot) or none (a directory).
    """

    entry: Entry
    open: Callable[[], Reader] | None = None


class Barrier(NamedTuple):
    """Between two items: all that came before are read to their ends before it goes on."""


class Dump(NamedTuple):
    """What one part of a source holds; the iterators are read once."""

    items: Iterator[Item | Barrier]
    problems: list[Problem]
    """Filled while ``items`` is read: what could not be looked at, and why."""
    ordered: bool = True
    """Whether they come in order; entries (not contents) that do not are held until the end."""
    why: Sequence[str] = ()
    """Filled as ``problems`` is: why it reads all, where only what has changed was asked for."""
    readers: int = 1
    """How many threads may read items at the same time; entries are then held until the end."""


class Size(NamedTuple):
    """About how many entries a part holds, and how many bytes; for progress only."""

    entries: int
    bytes: int


class Finding(NamedTuple):
    """One thing that `check` looked at; ``mend`` says how to put it right."""

    what: str
    passed: bool
    evidence: str
    mend: str = ""


class LoadReport(NamedTuple):
    """What a load wrote, and what it could not bring back."""

    entries: int
    bytes: int
    problems: tuple[Problem, ...]


class Source(Protocol):
    """
    One service of one tenant. Memory never grows with the data.

    Raises SourceMissing, SourceUnreadable and, for a service that does not answer, a
    TransientError.
    """

    def check(self) -> list[Finding]:
        """Whether it can be reached and read, and what to do where it cannot."""
        ...

    def parts(self) -> tuple[str, ...]:
        """The names of its parts, in the order they are dumped."""
        ...

    def measure(self, part: str) -> Size:
        """A quick look at how much one part holds; may run beside its dump."""
        ...

    def dump(self, part: str, since: Iterator[Entry] | None) -> Dump:
        """
        Read one part; ``since`` holds the same part's entries at the last snapshot, in order.

        An entry that has not changed since is given back with the content it had, unread.
        """
        ...

    def position(self) -> dict[str, Any]:
        """
        Where in the source's own log the dump belongs; empty for a source without a log.

        ``log`` says of which log this is, and is the same in the ``meta`` of the opening segment
        of every chain of it. ``at`` is the place: everything committed before it is in the dump,
        nothing after it. ``time`` is the moment, in ISO 8601, by the source's clock; no commit in
        the dump is later. After a `fold`, ``folded`` says ``after``, the place of the rows that the
        entries hold, and how many ``changes`` the entry `FOLDED` has.
        """
        ...


class LogPiece(NamedTuple):
    """
    A stretch of a log that ends between two transactions, or a part of a long transaction.

    ``header`` comes with the last piece of a segment, and its number and chain are the caller's to
    give. A piece without it is part of a transaction that is too long for one piece.
    """

    body: bytes
    header: LogHeader | None


class LogCounts(NamedTuple):
    """What the body of a segment holds, as its header counts it."""

    commits: int
    changes: int


CountLog = Callable[[Iterable[Blob]], LogCounts]
"""Reads a segment's body as a replay would; raises Damaged where that would fail."""


class LogStream(Protocol):
    """A source's log, being followed; leave its context to stop."""

    def pieces(self, until: Callable[[], bool], every: float) -> Iterator[LogPiece]:
        """
        What the log holds, a segment every so many seconds or sooner, until ``until`` says so.

        The last segment holds everything that was committed before ``until`` was first true.
        Raises LogBroken where the source lost a part of it, and SourceUnavailable.
        """
        ...

    def confirm(self, end: int) -> None:
        """Everything before ``end`` is durable: the source need not keep it any longer."""
        ...


@runtime_checkable
class LogSource(Protocol):
    """A source that keeps a transaction log, from which any moment can be restored."""

    def new_chain(self, *, renew: bool) -> LogHeader:
        """
        The opening segment of a new chain of what the source keeps.

        With ``renew`` that begins anew, and what an earlier chain kept is given up. Raises
        SourceUnprepared.
        """
        ...

    def follow(self, opening: LogHeader, last: LogHeader) -> AbstractContextManager[LogStream]:
        """
        Go on after ``last``, in the chain that ``opening`` began.

        Raises LogBroken where the source cannot give what follows, AlreadyRunning where another
        process follows it.
        """
        ...


class Log(NamedTuple):
    """
    The part of a chain that a restore replays, up to the first commit after ``until``.

    It begins with the segment that holds what came after ``after``, which is the place in the log
    of the rows that it is replayed on, and ends with the first that is restorable at ``until``.
    What an incremental backup has folded comes first, as one more segment. What is in no log is as
    of ``since``, when the backup was taken.
    """

    after: int
    since: datetime
    until: datetime
    segments: Iterable[tuple[LogHeader, Iterable[Blob]]]


class Stretch(NamedTuple):
    """
    A part of a log that is folded: what was committed from ``after`` on and before ``end``.

    ``log`` says of which log, and no commit in it is later than ``time``. The first segment may
    hold what came before ``after``; it may also be the content of an earlier `FOLDED`.
    """

    log: str
    after: int
    end: int
    time: datetime
    segments: Iterable[tuple[LogHeader, Iterable[Blob]]]


FOLDED = b"changes"
"""The entry of an incremental backup that holds what the log since its other entries comes to."""


def folded_segment(position: Mapping[str, Any]) -> LogHeader | None:
    """What `FOLDED` holds, as the segment that it stands for; None where nothing was folded."""
    folded = position.get("folded")
    if folded is None:
        return None
    moment = datetime.fromisoformat(position["time"])
    start, end, changes = folded["after"], position["at"], folded["changes"]
    return LogHeader(ChainId(""), 0, start, end, None, moment, moment, 1, changes)


@runtime_checkable
class FoldingSource(Source, LogSource, Protocol):
    """A source that is backed up from its log, without reading again what is in it."""

    def fold(self, since: Iterator[Entry], stretch: Stretch) -> Dump:
        """
        The entries of before as they are, and `FOLDED`, whose content is replayed as a segment is.

        What the log does not hold is read anew where that cannot contradict the rest. Raises
        LogBroken, also while its items are read, where only a full backup can be made.
        """
        ...


class Content(Protocol):
    """What a target is filled with."""

    def items(
        self, wanted: Callable[[Entry], bool] | None = None
    ) -> Iterator[tuple[Entry, Iterable[Blob]]]:
        """
        Entries in order with their content, or only the wanted ones; several may run at once.

        The content of an entry is read before the next entry is asked for, or passed over.
        """
        ...

    def log(self) -> Log | None:
        """What is replayed on top; None where the entries are all there is."""
        ...


class Target(Protocol):
    """
    Where one part of a source is brought back to, beside what is there until `commit`.

    Nothing that was there is changed before `commit`; `roll_back` undoes a commit that stopped
    half way, or one that the operator does not want. Every step may be run again after a crash.
    """

    def prepare(self, entries: Iterable[Entry], bytes_needed: int) -> None:
        """
        Look, without changing anything, whether the load can work.

        Raises WouldOverwrite, TargetFull, UnsafePath.
        """
        ...

    def load(self, content: Content) -> LoadReport:
        """Write everything beside the target; what an earlier try finished is kept."""
        ...

    def compare(self, entries: Iterable[Entry]) -> list[Problem]:
        """What was loaded, held against the entries and the content that was given to `load`."""
        ...

    def commit(self) -> None:
        """Switch to what was loaded; made durable before it returns."""
        ...

    def roll_back(self) -> None:
        """Put everything back as it was before `commit`, and drop what was loaded."""
        ...

    def finish(self) -> None:
        """Drop what `roll_back` would have needed."""
        ...


@runtime_checkable
class PreparedSource(Protocol):
    """A source whose server has to be prepared before its log can be followed."""

    def preparation(self, consent: bool) -> list[str]:  # noqa: FBT001 - a port names it alike everywhere
        """
        What `prepare` would run now, in order; nothing where all is there.

        ``consent`` lets it change what is the tenant's own, such as replica identities.
        """
        ...

    def prepare(self, consent: bool) -> None:  # noqa: FBT001
        """Make what is missing; may be run again. Raises SourceUnprepared, SourceUnavailable."""
        ...

    def release(self) -> list[str]:
        """Remove every trace of `prepare`; what was removed. Raises AlreadyRunning."""
        ...
