"""
Proving that transaction logs can be replayed, and saying which moments they lead to.

*structure*: every head opens, no number is missing, each segment begins where the one before it
ends, and the chunks of a long body are there. *sample*: that, and a random share of the bodies is
opened. *data*: that, and every body is, and read as a replay would.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from kryonix_backup.errors import Damaged, KryonixError
from kryonix_backup.maintenance.report import Damage, Level, VerifiedLog
from kryonix_backup.model import Blob, ChainId, ChunkId, LogHeader, SnapshotId, SourceName
from kryonix_backup.repository.layout import log_name
from kryonix_backup.repository.log import LogBook, Segments, fetched_ahead, list_segments
from kryonix_backup.repository.log_reach import UNREADABLE
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.restorable import (
    Gap,
    Restorable,
    bases_of,
    read_log,
    restorable,
)
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.sources.registry import log_counter
from kryonix_backup.sources.source import CountLog

_SAMPLE_SHARE = 30  # one body in so many: read daily, everything is read within a month
_READERS = 2  # each holds a whole body

Culprit = Callable[[ChunkId], str | None]
"""The object to blame where a chunk cannot be read; None where one place has it whole."""


class Numbered(NamedTuple):
    """One segment of a source's log."""

    chain: ChainId
    number: int


@dataclass(slots=True)
class LogsFound:
    """What the logs of a repository were found to be."""

    segments: int = 0
    segments_read: int = 0
    bytes_read: int = 0
    logs: list[VerifiedLog] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    blamed: list[tuple[str, str]] = field(default_factory=list)
    """Packs that hold damaged chunks of long bodies, each with what depends on it."""


class LogVerification:
    """
    The logs of all sources, as they were listed when this was made.

    That is before the index is loaded: chunks of a long body are in it before the segment is there.
    """

    def __init__(self, repository: Repository, level: Level) -> None:
        self._repository = repository
        self._level = level
        self._there: Segments = list_segments(repository.store)

    @property
    def is_needed(self) -> bool:
        """Whether any source has a log."""
        return bool(self._there)

    def run(
        self,
        snapshots: Sequence[Snapshot],
        unsound: Mapping[SourceName, Set[SnapshotId]],
        culprit: Culprit,
    ) -> LogsFound:
        """
        Check every log; ``unsound`` are the snapshots whose content of a source is damaged.

        Damage is told, not raised; what cannot be reached at all raises TransientError.
        """
        found = LogsFound()
        for source, chains in self._there.items():
            one = _OneLog(self._repository.log(source), chains, self._level, culprit, found)
            one.check(_counter_of(source, snapshots))
            bases = bases_of(source, snapshots)
            one.tell(restorable(one.log, bases, unsound.get(source, frozenset())))
        return found


def _counter_of(source: SourceName, snapshots: Sequence[Snapshot]) -> CountLog | None:
    for snapshot in reversed(snapshots):
        if source in snapshot.sources:
            return log_counter(snapshot.sources[source].url)
    return None


class _OneLog:
    """The log of one source."""

    def __init__(
        self,
        book: LogBook,
        chains: Mapping[ChainId, Set[int]],
        level: Level,
        culprit: Culprit,
        found: LogsFound,
    ) -> None:
        self._book = book
        self._chains = chains
        self._level = level
        self._culprit = culprit
        self._found = found
        self._spilled: dict[Numbered, list[ChunkId]] = {}
        self._reasons: dict[str, str] = {}
        self._remarks: list[str] = []
        self.log = read_log(book.source, chains, self._read)

    def check(self, count: CountLog | None) -> None:
        """Look at heads, then at long bodies' chunks, then at bodies."""
        for chain, numbers in self._chains.items():
            self._check_numbers(chain, sorted(numbers))
            self._check_heads(chain)
        for segment, chunks in self._spilled.items():
            self._check_chunks(segment, chunks)
        self._read_bodies(count)

    def tell(self, moments: Restorable) -> None:
        """Add what was found to the report, with the moments that each damage costs."""
        segments = sum(len(numbers) for numbers in self._chains.values())
        self._found.segments += segments
        self._found.logs.append(VerifiedLog(segments, moments, tuple(self._remarks)))
        for name, reason in sorted(self._reasons.items()):
            lost = tuple(
                _told(self._book.source, gap) for gap in moments.gaps if name in gap.reason
            )
            self._found.damage.append(Damage(name, reason, lost, len(lost)))

    def _read(self, chain: ChainId, number: int) -> LogHeader:
        header, chunks = self._book.named(chain, number)
        if chunks:
            self._spilled[Numbered(chain, number)] = chunks
        return header

    def _name(self, chain: ChainId, number: int) -> str:
        return log_name(self._book.source, chain, number)

    # ------------------------------------------------------------------ heads

    def _check_numbers(self, chain: ChainId, numbers: Sequence[int]) -> None:
        for one, two in pairwise((-1, *numbers)):
            if two == one + 1:
                continue
            missing, beyond = two - one - 1, len(numbers) - numbers.index(two)
            more = f", with {missing - 1} that follow it" if missing > 1 else ""
            self._reasons[self._name(chain, one + 1)] = (
                f"is missing{more}; {beyond} segments beyond it lead nowhere"
            )

    def _check_heads(self, chain: ChainId) -> None:
        heads = self.log.heads[chain]
        for number, head in enumerate(heads):
            if isinstance(head, KryonixError):
                self._lose(chain, number, head)
        sound = [head for head in heads if isinstance(head, LogHeader)]
        for one, two in pairwise(sound):
            if two.number == one.number + 1 and two.start != one.end:
                what = f"begins at {two.start}, and the segment before it ends at {one.end}"
                self._lose(chain, two.number, self._damaged(chain, two.number, what))
        self._check_identity(chain, sound)
        self._remark_clock(sound)

    def _check_identity(self, chain: ChainId, sound: Sequence[LogHeader]) -> None:
        log = None
        for head in sound:
            said = head.meta.get("log")
            if head.number == 0:
                log = said
                if not said:
                    what = "does not say of which log it is"
                    self._lose(chain, 0, self._damaged(chain, 0, what))
            elif said is not None and log is not None and said != log:
                what = f"is of the log {said}, and its chain of {log}"
                self._lose(chain, head.number, self._damaged(chain, head.number, what))

    def _remark_clock(self, sound: Sequence[LogHeader]) -> None:
        newest = None
        for head in sound:
            if head.restorable is None:
                continue
            if newest is not None and head.restorable < newest:
                self._remarks.append(
                    f"{self._name(head.chain, head.number)} goes back from {newest.isoformat()} to"
                    f" {head.restorable.isoformat()}: the source's clock was set back, and a moment"
                    " between these is the first of its time"
                )
            newest = head.restorable if newest is None else max(newest, head.restorable)

    # ------------------------------------------------------------------ bodies

    def _check_chunks(self, segment: Numbered, chunks: Sequence[ChunkId]) -> None:
        name = self._name(*segment)
        culprits = {culprit for chunk in chunks if (culprit := self._culprit(chunk)) is not None}
        for culprit in sorted(culprits):
            self._found.blamed.append((culprit, name))
            what = f"needs {culprit}, which is damaged"
            self._lose(*segment, self._damaged(*segment, what))

    def _read_bodies(self, count: CountLog | None) -> None:
        picked = self._picked()

        def read(at: int) -> tuple[int, KryonixError | None]:
            return self._read_body(picked[at], count)

        for segment, (size, error) in zip(
            picked, fetched_ahead(range(len(picked)), read, _READERS), strict=True
        ):
            self._found.segments_read += 1
            self._found.bytes_read += size
            if error is not None:
                self._lose(*segment, error)

    def _picked(self) -> list[Numbered]:
        if self._level is Level.STRUCTURE:
            return []
        whole = [
            Numbered(chain, head.number)
            for chain, heads in self.log.heads.items()
            for head in heads
            if isinstance(head, LogHeader) and (chain, head.number) not in self.log.lost
        ]
        if self._level is Level.DATA:
            return whole
        return sorted(secrets.SystemRandom().sample(whole, -(-len(whole) // _SAMPLE_SHARE)))

    def _read_body(
        self, segment: Numbered, count: CountLog | None
    ) -> tuple[int, KryonixError | None]:
        """How many bytes a body has, and what is wrong with it."""
        sizes: list[int] = []
        try:
            head, body = self._book.segment(*segment)
            measured = _measured(body, sizes)
            if count is None:
                for _ in measured:
                    pass
            else:
                counts = count(measured)
                if counts != (head.commits, head.changes):
                    return sum(sizes), self._damaged(
                        *segment,
                        f"holds {counts.commits} commits and {counts.changes} changes, and its head"
                        f" says {head.commits} and {head.changes}",
                    )
        except UNREADABLE as error:
            return sum(sizes), self._damaged(*segment, error.message)
        return sum(sizes), None

    # ------------------------------------------------------------------ damage

    def _damaged(self, chain: ChainId, number: int, what: str) -> Damaged:
        name = self._name(chain, number)
        return Damaged(what if name in what else f"{name} {what}")

    def _lose(self, chain: ChainId, number: int, error: KryonixError) -> None:
        name = self._name(chain, number)
        self._reasons.setdefault(name, error.message.removeprefix(f"{name} "))
        self.log.lost.setdefault((chain, number), error)


def _measured(body: Iterator[Blob], sizes: list[int]) -> Iterator[Blob]:
    for piece in body:
        sizes.append(len(piece))
        yield piece


def _told(source: SourceName, gap: Gap) -> str:
    start = f"after {gap.start.isoformat()}" if gap.start else "of its log"
    end = f"before {gap.end.isoformat()}" if gap.end else "before the next full backup"
    return f"{source}: every moment {start} and {end}"
