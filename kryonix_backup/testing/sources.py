"""A source in memory and a target in memory, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kryonix_backup.errors import KryonixError, RestoreError, SourceUnreadable
from kryonix_backup.model import Blob, Entry, EntryKind, Problem, sort_key
from kryonix_backup.sources.source import Content, Dump, Finding, Item, LoadReport, Log, Size


@dataclass(frozen=True)
class Thing:
    """
    One entry of a `MemorySource`.

    ``stamp`` None means that nobody can know whether it changed. With ``fails_at`` its content
    cannot be read from that byte on, and at 0 not be opened at all. ``step`` is the most that one
    call of the reader gives.
    """

    data: bytes = b""
    kind: EntryKind = EntryKind.FILE
    meta: Mapping[str, Any] = field(default_factory=dict)
    stamp: Any = None
    fails_at: int | None = None
    step: int = 1 << 20


class MemorySource:
    """A `Source` whose parts are dictionaries; ``opened`` has every path that was read."""

    def __init__(self, *parts: Mapping[bytes, Thing], names: Sequence[str] = ()) -> None:
        self._parts = dict(zip(names or [f"part-{n}" for n in range(len(parts))], parts,
                               strict=True))  # fmt: skip
        self.opened: list[bytes] = []

    def check(self) -> list[Finding]:
        """It can always be read."""
        return [Finding("memory", passed=True, evidence=f"{len(self._parts)} parts")]

    def parts(self) -> tuple[str, ...]:
        """The names it was made with."""
        return tuple(self._parts)

    def measure(self, part: str) -> Size:
        """The exact size of a part."""
        things = self._parts[part].values()
        return Size(len(things), sum(len(thing.data) for thing in things))

    def dump(self, part: str, since: Iterator[Entry] | None) -> Dump:
        """Every thing in order; one with the stamp of before comes back unread."""
        return Dump(self._items(self._parts[part], since or iter(())), [])

    def position(self) -> dict[str, Any]:
        """It keeps no log."""
        return {}

    def _items(self, part: Mapping[bytes, Thing], since: Iterator[Entry]) -> Iterator[Item]:
        known = next(since, None)
        for path in sorted(part, key=sort_key):
            while known is not None and sort_key(known.path) < sort_key(path):
                known = next(since, None)
            thing = part[path]
            before = known if known is not None and known.path == path else None
            if before is not None and thing.stamp is not None and before.stamp == thing.stamp:
                yield Item(before)
            else:
                yield self._item(path, thing)

    def _item(self, path: bytes, thing: Thing) -> Item:
        size = len(thing.data)
        entry = Entry(path, thing.kind, size, stamp=thing.stamp, meta=dict(thing.meta))
        if thing.kind is not EntryKind.FILE:
            return Item(entry)
        return Item(entry, lambda: self._open(entry, thing))

    def _open(self, entry: Entry, thing: Thing) -> _MemoryReader:
        self.opened.append(entry.path)
        if thing.fails_at == 0:
            raise SourceUnreadable(f"{entry.text} cannot be opened")
        return _MemoryReader(entry, thing)


def items_of(dump: Dump) -> Iterator[Item]:
    """The items of a dump that has no barrier."""
    for item in dump.items:
        assert isinstance(item, Item)
        yield item


class _MemoryReader:
    def __init__(self, entry: Entry, thing: Thing) -> None:
        self._entry = entry
        self._thing = thing
        self._at = 0

    def readinto(self, view: memoryview) -> int:
        """At most ``step`` bytes."""
        end = min(self._at + len(view), self._at + self._thing.step, len(self._thing.data))
        if self._thing.fails_at is not None and end >= self._thing.fails_at:
            raise SourceUnreadable(f"{self._entry.text} breaks off at {self._thing.fails_at}")
        count = end - self._at
        view[:count] = self._thing.data[self._at : end]
        self._at = end
        return count

    def close(self) -> Entry:
        """The entry as it was."""
        return self._entry


class GivenContent:
    """A `Content` of these items, which can be read once; it has no log."""

    def __init__(self, items: Iterable[tuple[Entry, Iterable[Blob]]]) -> None:
        self._items = items

    def items(
        self, wanted: Callable[[Entry], bool] | None = None
    ) -> Iterator[tuple[Entry, Iterable[Blob]]]:
        """What it was made with."""
        return (item for item in self._items if wanted is None or wanted(item[0]))

    def log(self) -> Log | None:
        """Nothing to replay."""
        return None


class MemoryTarget:
    """
    A `Target` in a dictionary: ``there`` is what is in place, ``beside`` what was loaded.

    ``fails`` names the steps that raise an error, once each; ``calls`` has every step that was
    taken.
    """

    def __init__(self, **fails: KryonixError) -> None:
        self.there: dict[bytes, tuple[Entry, bytes]] = {}
        self.beside: dict[bytes, tuple[Entry, bytes]] = {}
        self.before: dict[bytes, tuple[Entry, bytes]] | None = None
        self.problems: tuple[Problem, ...] = ()
        self.differing: list[Problem] = []
        self.calls: list[str] = []
        self.fails = fails

    def prepare(self, entries: Iterable[Entry], bytes_needed: int) -> None:
        """Look at the entries only."""
        self._call("prepare")
        assert sum(entry.size for entry in entries) >= 0
        assert bytes_needed >= 0

    def load(self, content: Content) -> LoadReport:
        """Take everything in."""
        self._call("load")
        for entry, pieces in content.items():
            self.beside[entry.path] = (entry, b"".join(bytes(piece) for piece in pieces))
        size = sum(len(content) for _, content in self.beside.values())
        return LoadReport(len(self.beside), size, self.problems)

    def compare(self, entries: Iterable[Entry]) -> list[Problem]:
        """Entries that were not loaded, and what the test wants to differ."""
        self._call("compare")
        missing = [entry for entry in entries if entry.path not in self.beside]
        return [*(Problem(entry.text, "is missing") for entry in missing), *self.differing]

    def commit(self) -> None:
        """Put what was loaded in place of what was there."""
        self._call("commit")
        if self.before is None:
            self.before, self.there = self.there, dict(self.beside)

    def roll_back(self) -> None:
        """Put back what was there; RestoreError after `finish`, when that is gone."""
        self._call("roll_back")
        if "finish" in self.calls:
            raise RestoreError("what was there before is gone")
        if self.before is not None:
            self.there, self.before = self.before, None
        self.beside.clear()

    def finish(self) -> None:
        """Forget what was there."""
        self._call("finish")

    def _call(self, step: str) -> None:
        error = self.fails.pop(step, None)
        if error is not None:
            raise error
        self.calls.append(step)
