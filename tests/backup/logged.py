"""A source in memory that keeps a log, and is backed up from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kryonix_backup.model import Entry, EntryKind, LogHeader, SourceName
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sources.source import FOLDED, Dump, Finding, Item, LogStream, Size, Stretch
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.sources import MemorySource, Thing, items_of
from tests.backup.test_follow import MemoryLog

DB = SourceName("db")


@dataclass
class LoggedSource:
    """
    A `FoldingSource`: its rows are the transactions that it was dumped with, joined.

    ``kept`` is the server's side of its log. ``log`` says of which log its chains are, ``size``
    how much it holds, and ``weight`` how many changes each transaction counts for. ``refuses`` is
    raised by `fold`, while its items are read, and ``unprepared`` by `new_chain`.
    """

    kept: MemoryLog = field(default_factory=MemoryLog)
    log: str = "m"
    size: int = 1000
    weight: int = 1
    refuses: Exception | None = None
    unprepared: Exception | None = None
    opened: list[bytes] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    _position: dict[str, Any] = field(default_factory=dict)

    def new_chain(self, *, renew: bool) -> LogHeader:
        """Of its log."""
        if self.unprepared is not None:
            raise self.unprepared
        return self.kept.new_chain(renew=renew)._replace(meta={"log": self.log})

    def follow(self, opening: LogHeader, last: LogHeader) -> AbstractContextManager[LogStream]:
        """After the last segment."""
        return self.kept.follow(opening, last)

    @property
    def written(self) -> list[bytes]:
        """Its transactions."""
        return self.kept.written

    def check(self) -> list[Finding]:
        """Nothing."""
        return []

    def parts(self) -> tuple[str, ...]:
        """One."""
        return ("all",)

    def measure(self, part: str) -> Size:
        """What the test says."""
        assert part == "all"
        return Size(1, self.size)

    def dump(self, part: str, since: Iterator[Entry] | None) -> Dump:
        """Everything that was written by now."""
        del since
        end = len(self.written)
        time = (NOON + timedelta(seconds=end)).isoformat()
        self._position = {"log": self.log, "at": end, "time": time}
        return self._memory({b"rows": b"".join(self.written)}, part)

    def fold(self, since: Iterator[Entry], stretch: Stretch) -> Dump:
        """The log joined."""
        self.stretches.append(stretch)
        return Dump(self._folded(since, stretch), [])

    def position(self) -> dict[str, Any]:
        """Of the last dump or fold."""
        return self._position

    def _folded(self, since: Iterator[Entry], stretch: Stretch) -> Iterator[Item]:
        body, changes, reached = b"", 0, stretch.after
        for header, pieces in stretch.segments:
            if header.end > reached:
                reached = header.end
                body += b"".join(bytes(piece) for piece in pieces)
                changes += header.changes * (1 if header.chain == "" else self.weight)
        yield from items_of(self._memory({FOLDED: body}, "all"))
        for entry in since:
            if entry.path != FOLDED:
                yield Item(entry)
        if self.refuses is not None:
            raise self.refuses
        self._position = {
            "log": stretch.log, "at": stretch.end, "time": stretch.time.isoformat(),
            "folded": {"after": stretch.after, "changes": changes},
        }  # fmt: skip

    def _memory(self, content: dict[bytes, bytes], part: str) -> Dump:
        memory = MemorySource(
            {path: Thing(body, EntryKind.FILE) for path, body in content.items()}, names=[part]
        )
        self.opened += content
        return memory.dump(part, None)


def content_of(repository: Repository, snapshot: str = "latest") -> dict[bytes, bytes]:
    """Every entry of the source, with its content."""
    (part,) = repository.snapshot(snapshot).sources[DB].parts
    tree = repository.tree(part.root, repository.reader())
    return {
        entry.path: b"".join(map(bytes, repository.content(part.root, entry.path)))
        for entry in tree.entries()
    }
