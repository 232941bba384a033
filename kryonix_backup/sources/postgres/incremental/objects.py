"""Large objects of an incremental backup: no log holds them, so what has changed is read anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from kryonix_backup.errors import LogBroken
from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.decoding.sample import MARK
from kryonix_backup.sources.postgres.dumping import paths
from kryonix_backup.sources.postgres.dumping.objects import (
    Now,
    changed_objects,
    large_objects_of,
    mark_of,
    now_of,
    one_moment,
)
from kryonix_backup.sources.postgres.dumping.reading import PiecesReader, large_object
from kryonix_backup.sources.postgres.preparation.beating import beat
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection, connected
from kryonix_backup.sources.source import Item, Reader


class ObjectsNow:
    """
    The large objects of a database at one moment, which is not before the end of the log so far.

    ``known_since`` is that moment, once `items` was read, where there are any or were any before.
    """

    def __init__(
        self, connection: Connection, address: Address, now: Now, place: int, time: datetime
    ) -> None:
        self.known_since: datetime | None = None
        self._connection = connection
        self._address = address
        self._now = now
        self._time = time
        self._left = dict(large_objects_of(connection))
        self._mark = mark_of(place, time, now.horizon, len(self._left))
        self._changed: set[int] = set()
        if self._left:
            self.known_since = time
            if not now.may_look:
                raise LogBroken(
                    "the database holds large objects, which are in no log, and user"
                    f" {address.user} may not see which of them have changed"
                )

    def items(self, since: Iterable[Entry]) -> Iterator[Item]:
        """The entries of before, in order; of the large objects those that there are now."""
        for entry in since:
            if entry.path.startswith(paths.LARGE_OBJECTS):
                yield from self._object(entry)
                continue
            if entry.path > paths.LARGE_OBJECTS:
                yield from self._before(None)
            yield Item(self._marked(entry) if entry.path == paths.DATABASE else entry)
        yield from self._before(None)

    def _marked(self, entry: Entry) -> Entry:
        """It comes before all objects, and says of when those of before are."""
        earlier = entry.meta.get(MARK)
        if self._left:
            horizon = None if earlier is None else earlier["horizon"]
            self._changed.update(changed_objects(self._connection, horizon, self._now.horizon))
        return entry._replace(meta={**entry.meta, MARK: self._mark})

    def _object(self, entry: Entry) -> Iterator[Item]:
        self.known_since = self._time
        oid = int(entry.path.removeprefix(paths.LARGE_OBJECTS))
        yield from self._before(oid)
        if oid in self._changed:
            yield from self._before(oid + 1)
        elif oid in self._left:
            yield Item(entry._replace(meta=self._left.pop(oid)))

    def _before(self, oid: int | None) -> Iterator[Item]:
        """Those up to that one that no entry of before stands for."""
        while self._left:
            first = next(iter(self._left))
            if oid is not None and first >= oid:
                return
            yield self._read(first, self._left.pop(first))

    def _read(self, oid: int, meta: dict[str, Any]) -> Item:
        entry = Entry(paths.large_object_path(oid), EntryKind.FILE, 0, meta=meta)

        def opened() -> Reader:
            return PiecesReader(entry, large_object(self._connection, oid), self._address)

        return Item(entry, opened)


@contextmanager
def objects_now(connection: Connection, address: Address) -> Iterator[ObjectsNow]:
    """
    The large objects as they are now, for as long as the context lasts.

    Raises LogBroken where it cannot be seen which have changed.
    """
    now = now_of(connection)
    if now.at is None:
        raise LogBroken("the server is a standby, and nobody knows where it stands in its log")
    with one_moment(connection) as time:
        objects = ObjectsNow(connection, address, now, now.at, time)
        with connected(address) as other:
            # What was seen may be committed and not yet durable; a commit after it is both at once.
            other.execute("set synchronous_commit = local")
            beat(other)
        yield objects
