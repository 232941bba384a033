"""Large objects of a restored database: as of its backup, then as of samples in its log."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from psycopg import sql

from kryonix_backup.errors import Damaged
from kryonix_backup.model import Entry, Problem
from kryonix_backup.sources.postgres.decoding import sample
from kryonix_backup.sources.postgres.dumping import paths
from kryonix_backup.sources.postgres.restoring.applying import Applier
from kryonix_backup.sources.postgres.restoring.making import LARGE_OBJECT_RIGHTS, rights_of, run_all
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection
from kryonix_backup.sources.source import Log

log = logging.getLogger(__name__)

# The server keeps a lock on each until a transaction ends, and has room for so many alone.
_AT_ONCE = 500
_COMMENTED = """
select d.objoid::int8, d.description from pg_description d
where d.classoid = 'pg_catalog.pg_largeobject'::regclass and d.objsubid = 0
"""


class Objects(NamedTuple):
    """
    The large objects that a database was loaded with.

    Samples from the place ``after`` on go on from them; where it is None nothing does.
    """

    after: int | None
    time: datetime
    total: int


def loaded_objects(
    changes: Log, rows: Iterable[Entry], mark: Mapping[str, Any] | None, *, whole: bool
) -> Objects:
    """Those that were loaded; no sample goes on from a part of what was saved."""
    count = sum(entry.path.startswith(paths.LARGE_OBJECTS) for entry in rows)
    if mark is None:  # saved before there were samples
        return Objects(changes.after if whole else None, changes.since, count)
    time = datetime.fromisoformat(mark["time"])
    goes_on = count == mark["total"] and (whole or count > 0)
    return Objects(mark["at"] if goes_on else None, time, count)


def tell_of_objects(address: Address, objects: Objects, changes: Log) -> None:
    """Say of when large objects are: of another moment than the rows."""
    if objects.total:
        log.warning(
            "%s: its large objects are as of %s, %.0f seconds before the moment: they are in no"
            " log, and %s",
            address.shown,
            objects.time.isoformat(),
            (changes.until - objects.time).total_seconds(),
            "as of the backup" if objects.time <= changes.since else "were sampled then",
        )


class Sampled:
    """Samples, brought into a database one after the other; no other one uses its connection."""

    def __init__(self, applier: Applier, objects: Objects, until: datetime) -> None:
        self.objects = objects
        """Those that there are by now."""
        self._problems: list[Problem] = []
        self._missing: list[int] = []
        self._applier = applier
        self._connection = applier.connection
        self._until = until
        self._begun: sample.Begun | None = None
        self._oid: int | None = None
        self._meta: Mapping[str, Any] = {}
        self._offset = self._open = 0
        self._there = array("I")
        self._comments: dict[int, str] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """
        What could not be brought back, and objects that the newest sample names and none holds.

        A sample may name one whose removal was in the log already, and waited for a standby.
        """
        return *self._problems, *(
            Problem(
                f"large object {oid}",
                "is named by the newest sample in the transaction log, but neither that nor the"
                " backup holds it; it may have been removed just before",
            )
            for oid in self._missing
        )

    def take(self, message: bytes, whole: Mapping[str, Any] | None) -> None:
        """
        The next frame of a sample; ``whole`` is the one that the segment holds to its end.

        Raises Damaged.
        """
        part = sample.parse(message)
        if isinstance(part, sample.Begun):
            self._begin(part, whole)
        elif self._begun is not None:
            self._apply(part)

    def _begin(self, begun: sample.Begun, whole: Mapping[str, Any] | None) -> None:
        after = self.objects.after
        wanted = (
            after is not None
            and after <= begun.at
            and begun.time <= self._until
            and whole is not None
            and whole["at"] == begun.at
        )
        self._begun = begun if wanted else None
        if wanted:
            self._applier.settle()
            self._there = array("I")
            self._comments = {}
            self._connection.execute("begin")

    def _apply(self, part: sample.Part) -> None:
        match part:
            case sample.Told(oid, meta):
                self._finish_object()
                self._begin_object(oid, meta)
            case sample.Piece(data):
                self._write(data)
            case sample.Runs(runs):
                for first, count in runs:
                    self._there.extend(range(first, first + count))
            case sample.Comments(comments):
                self._comments |= comments
            case _:
                self._finish_object()
                self._end()

    def _begin_object(self, oid: int, meta: Mapping[str, Any]) -> None:
        self._pause()
        _remove(self._connection, [oid])
        self._connection.execute("select lo_create(%s)", (oid,))
        self._oid, self._meta, self._offset = oid, meta, 0

    def _write(self, data: memoryview) -> None:
        if self._oid is None:
            raise Damaged("a sample of large objects has content of none")
        self._connection.execute(
            "select lo_put(%s, %s, %b)", (self._oid, self._offset, bytes(data))
        )
        self._offset += len(data)

    def _finish_object(self) -> None:
        if self._oid is not None:
            self._problems += dress_object(self._connection, self._oid, self._meta)
        self._oid = None

    def _pause(self) -> None:
        self._open += 1
        if self._open % _AT_ONCE == 0:
            self._connection.execute("commit")
            self._connection.execute("begin")

    def _end(self) -> None:
        assert self._begun is not None
        rows = self._connection.execute("select oid::int8 from pg_largeobject_metadata").fetchall()
        found, there = {row[0] for row in rows}, set(self._there)
        if len(there) != self._begun.total:
            raise Damaged("a sample of large objects does not name all that there were")
        self._missing = sorted(there - found)
        gone = iter(sorted(found - there))
        while some := list(islice(gone, _AT_ONCE)):
            self._connection.execute("commit")
            self._connection.execute("begin")
            _remove(self._connection, some)
        self._say()
        self._connection.execute("commit")
        begun, self._begun = self._begun, None
        self.objects = Objects(begun.at, begun.time, begun.total)

    def _say(self) -> None:
        """Comments come and go without a change of the object."""
        was: dict[int, str] = dict(self._connection.execute(_COMMENTED).fetchall())
        wanted = self._comments
        for oid in sorted(was.keys() | wanted.keys()):
            if was.get(oid) != wanted.get(oid):
                self._pause()
                statement = _comment(oid, wanted.get(oid))
                self._problems += run_all(self._connection, [statement], f"large object {oid}")


def dress_object(connection: Connection, oid: int, meta: Mapping[str, Any]) -> list[Problem]:
    """Give a new object its owner, rights and comment; what is refused is told."""
    thing = _named(oid)
    statements = [
        sql.SQL("alter {} owner to {}").format(thing, sql.Identifier(meta["owner"])),
        *(
            sql.SQL("grant {} on {} to {}{}").format(
                sql.SQL(right), thing, who, sql.SQL(" with grant option" if option else "")
            )
            for who, right, option in rights_of(meta["acl"] or (), LARGE_OBJECT_RIGHTS)
        ),
    ]
    if meta["comment"] is not None:
        statements.append(_comment(oid, meta["comment"]))
    return run_all(connection, statements, f"large object {oid}")


def _comment(oid: int, text: str | None) -> sql.Composed:
    return sql.SQL("comment on {} is {}").format(_named(oid), sql.Literal(text))


def _named(oid: int) -> sql.Composed:
    return sql.SQL("large object {}").format(sql.Literal(oid))


def _remove(connection: Connection, oids: Iterable[int]) -> None:
    connection.execute(
        "select lo_unlink(oid) from pg_largeobject_metadata where oid = any(%s::oid[])",
        (list(oids),),
    )
