"""The entries of an incremental backup: those of before, and what the log since comes to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from kryonix_backup.model import Entry, EntryKind, sort_key
from kryonix_backup.sources.postgres.dumping import paths
from kryonix_backup.sources.postgres.dumping.contents import database_of, roles_of
from kryonix_backup.sources.postgres.dumping.reading import BytesReader, Pieces
from kryonix_backup.sources.postgres.incremental.folding import Fold
from kryonix_backup.sources.postgres.incremental.objects import ObjectsNow
from kryonix_backup.sources.postgres.server.session import Connection
from kryonix_backup.sources.source import FOLDED, Barrier, Item, Reader, Stretch

_ANEW = frozenset({FOLDED, paths.NOW})


def folded_items(
    connection: Connection, since: Iterable[Entry], fold: Fold, objects: ObjectsNow
) -> Iterator[Item | Barrier]:
    """Every entry in order; the rows of before are not read, nor objects that have not changed."""
    new = [_changes(fold), _now(connection)]
    for item in objects.items(since):
        while new and sort_key(new[0].entry.path) < sort_key(item.entry.path):
            yield new.pop(0)
        if item.entry.path not in _ANEW:
            yield item
    yield from new
    yield Barrier()  # the moment of the objects ends with their connection


def folded_position(stretch: Stretch, fold: Fold, known: datetime | None) -> dict[str, Any]:
    """Where it stands in the log, once everything was folded, with objects ``known`` since then."""
    return {
        "log": stretch.log,
        "at": stretch.end,
        "time": max(stretch.time, known or stretch.time).isoformat(),
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
