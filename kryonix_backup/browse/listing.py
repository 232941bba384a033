"""What a snapshot holds, and the content of one entry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kryonix_backup.errors import SnapshotUnknown, UsageError
from kryonix_backup.model import Blob, Entry, EntryKind
from kryonix_backup.repository.content import refs_of
from kryonix_backup.repository.reader import ChunkReader
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import PartResult, Snapshot, SourceResult


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a snapshot, with its path for people."""

    source: str
    path: str
    entry: Entry

    def to_plain(self) -> dict[str, Any]:
        """The entry as JSON can say it; ``mode`` and ``mtime_ns`` where the source has them."""
        entry = self.entry
        plain: dict[str, Any] = {
            "source": self.source,
            "path": self.path,
            "kind": EntryKind(entry.kind).value,
            "size": entry.size,
        }
        if "mode" in entry.meta:
            plain["mode"] = f"{entry.meta['mode']:04o}"
        if "mtime" in entry.meta:
            plain["mtime_ns"] = entry.meta["mtime"]
        target = entry.meta.get("target")
        if isinstance(target, bytes):
            plain["target"] = target.decode("utf-8", "backslashreplace")
        return plain


def list_entries(repository: Repository, snapshot: Snapshot, path: str = "") -> Iterator[Listed]:
    """
    The entry at a path and everything below it, in order; an empty path lists every source.

    Raises SnapshotUnknown when there is nothing at that path.
    """
    reader = repository.reader()
    found = False
    for source, part, inner in _places(snapshot, path):
        found = found or not inner  # a source may hold nothing
        tree = repository.tree(part.root, reader)
        for entry in tree.below(inner):
            if entry.path or not inner:
                found = True
                yield Listed(source.name, source.shown(part, entry.path), entry)
    if not found:
        raise SnapshotUnknown(
            f"snapshot {snapshot.id} has nothing at {path!r}",
            f"See 'kryonix ls {snapshot.tenant} {snapshot.id}'.",
        )


def read_entry(repository: Repository, snapshot: Snapshot, path: str) -> Iterator[Blob]:
    """
    The content of the file at a path, piece by piece, holes filled with zeros.

    Raises SnapshotUnknown when there is no such entry, UsageError when it is not a file.
    """
    reader = repository.reader()
    for _, part, inner in _places(snapshot, path):
        entry = _entry_at(repository, reader, part, inner)
        if entry is not None and entry.kind is EntryKind.HARDLINK:
            entry = _entry_at(repository, reader, part, entry.meta["target"])
        if entry is None:
            continue
        if entry.kind is not EntryKind.FILE:
            raise UsageError(
                f"{path!r} is a {EntryKind(entry.kind).value}, not a file",
                f"'kryonix ls ID {snapshot.id} {path}' lists what is below it.",
            )
        pieces = reader.stream(refs_of(entry, reader.read))
        return filled(entry, (piece for piece in pieces if not isinstance(piece, Entry)))
    raise SnapshotUnknown(
        f"snapshot {snapshot.id} has nothing at {path!r}",
        f"See 'kryonix ls {snapshot.tenant} {snapshot.id}'.",
    )


def filled(entry: Entry, pieces: Iterator[Blob]) -> Iterator[Blob]:
    """A file's bytes with its holes put back as zeros."""
    at = 0
    holes = [(int(start), int(length)) for start, length in entry.meta.get("holes", ())]
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            if holes and holes[0][0] == at:
                at += holes[0][1]
                yield from _zeros(holes.pop(0)[1])
                continue
            room = holes[0][0] - at if holes else len(rest)
            yield rest[:room]
            at += min(room, len(rest))
            rest = rest[room:]
    for _, length in holes:
        yield from _zeros(length)


def _zeros(length: int) -> Iterator[Blob]:
    block = bytes(min(length, 1 << 20))
    while length > 0:
        yield block[:length]
        length -= len(block[:length])


def _places(snapshot: Snapshot, path: str) -> Iterator[tuple[SourceResult, PartResult, bytes]]:
    name, _, rest = path.strip("/").partition("/")
    for source in snapshot.sources.values():
        if name and source.name != name:
            continue
        if len(source.parts) == 1:
            yield source, source.parts[0], os.fsencode(rest)
            continue
        part_name, _, inner = rest.partition("/")
        for part in source.parts:
            if not part_name or part.name == part_name:
                yield source, part, os.fsencode(inner)


def _entry_at(
    repository: Repository, reader: ChunkReader, part: PartResult, path: bytes
) -> Entry | None:
    first = next(repository.tree(part.root, reader).entries(path), None)
    return first if first is not None and first.path == path else None
