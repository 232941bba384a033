"""The entries of an incremental backup: those of before, and what the log since comes to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kryonix_backup.errors import LogBroken
from kryonix_backup.model import Entry, EntryKind, sort_key
from kryonix_backup.sources.postgres.dumping import paths
from kryonix_backup.sources.postgres.dumping.contents import (
    database_of,
    has_large_objects,
    roles_of,
)
from kryonix_backup.sources.postgres.dumping.reading import BytesReader, Pieces
from kryonix_backup.sources.postgres.incremental.folding import Fold
from kryonix_backup.sources.postgres.server.session import Connection
from kryonix_backup.sources.source import FOLDED, Item, Reader, Stretch

_ANEW = frozenset({FOLDED, paths.NOW})


def folded_items(connection: Connection, since: Iterable[Entry], fold: Fold) -> Iterator[Item]:
    """
    Every entry in order; the rows of before are not read.

    Raises LogBroken where there are large objects, which are in no log.
    """
    if has_large_objects(connection):
        raise _large_objects("the database holds")
    new = [_changes(fold), _now(connection)]
    for entry in since:
        if entry.path.startswith(paths.LARGE_OBJECTS):
            raise _large_objects("the snapshot before holds")
        while new and sort_key(new[0].entry.path) < sort_key(entry.path):
            yield new.pop(0)
        if entry.path not in _ANEW:
            yield Item(entry)
    yield from new


def folded_position(stretch: Stretch, fold: Fold) -> dict[str, Any]:
    """Where it stands in the log, once everything was folded."""
    return {
        "log": stretch.log,
        "at": stretch.end,
        "time": stretch.time.isoformat(),
        "folded": {"after": stretch.after, "changes": fold.changes},
    }


class FoldReader(Pieces):
    """What a stretch of the log comes to, as the content of an entry."""

    def __init__(self, entry: Entry, fold: Fold) -> None:
        super().__init__(fold.pieces())
        self._entry = entry
        self._fold = fold

    def close(self) -> Entry:
        """The entry, with how many changes are in it."""
        return self._entry._replace(meta={**self._entry.meta, "changes": self._fold.changes})


def _changes(fold: Fold) -> Item:
    entry = Entry(FOLDED, EntryKind.FILE, 0, meta={"needed": True})

    def opened() -> Reader:
        return FoldReader(entry, fold)

    return Item(entry, opened)


def _now(connection: Connection) -> Item:
    """What no log holds, and nothing that the replay of one rests on."""
    content = {"roles": roles_of(connection), "database": database_of(connection)}
    body = json.dumps(content, indent=1, sort_keys=True).encode()
    entry = Entry(paths.NOW, EntryKind.FILE, len(body), meta={"needed": True})
    return Item(entry, lambda: BytesReader(entry, body))


def _large_objects(who: str) -> LogBroken:
    return LogBroken(f"{who} large objects, which are in no log")
