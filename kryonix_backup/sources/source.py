"""
The port through which the engine sees a service of a tenant, in both directions.

A source is dumped in *parts*; a part is a sequence of *items* in the order of `sort_key`. An
item is an entry and, where there is new content to read, a way to open it. What dumps also loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from kryonix_backup.model import Blob, Entry, Problem


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


class Dump(NamedTuple):
    """What one part of a source holds; the iterators are read once."""

    items: Iterator[Item]
    problems: list[Problem]
    """Filled while ``items`` is read: what could not be looked at, and why."""


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
        """Where the source's own log stands (LSN, offset); empty for a source without a log."""
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
