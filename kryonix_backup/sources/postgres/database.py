"""A PostgreSQL database as a source."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import Any

import psycopg
from psycopg import sql

from kryonix_backup.errors import (
    ConfigError,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from kryonix_backup.model import MIB, Blob, Entry, EntryKind, LogHeader, sort_key
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.postgres.checking import check
from kryonix_backup.sources.postgres.decoding.sample import MARK
from kryonix_backup.sources.postgres.dumping import paths
from kryonix_backup.sources.postgres.dumping.contents import (
    PAGE_BYTES,
    Table,
    changed_since,
    database_of,
    roles_of,
    sequences_of,
    tables_of,
    unseen_by,
)
from kryonix_backup.sources.postgres.dumping.objects import large_objects_of, mark_of, now_of
from kryonix_backup.sources.postgres.dumping.reading import (
    BytesReader,
    CopyProgram,
    CopyReader,
    PiecesReader,
    copied,
    large_object,
    schema_by_pg_dump,
    told_of_reading,
)
from kryonix_backup.sources.postgres.following.stream import PostgresLog
from kryonix_backup.sources.postgres.incremental.changes import folded_items, folded_position
from kryonix_backup.sources.postgres.incremental.folding import Fold
from kryonix_backup.sources.postgres.incremental.objects import objects_now
from kryonix_backup.sources.postgres.preparation.needs import refuse_schema
from kryonix_backup.sources.postgres.preparation.preparing import (
    plan,
    prepare,
    prepared,
    release,
    renew_slot,
)
from kryonix_backup.sources.postgres.server.address import SCHEMA, Address
from kryonix_backup.sources.postgres.server.exported import Exported, exported
from kryonix_backup.sources.postgres.server.programs import programs_for
from kryonix_backup.sources.postgres.server.session import Connection, connected, encoding_of
from kryonix_backup.sources.postgres.server.timescale import timescale_of
from kryonix_backup.sources.process import Program
from kryonix_backup.sources.source import (
    Barrier,
    Dump,
    Finding,
    Item,
    LogStream,
    Reader,
    Size,
    Stretch,
)

PART = "database"
# So much of a table is one entry, and is read again alone. A table is cut finer where it would
# make fewer than eight, or some readers are done long before the last one.
_RANGE_PAGES = 256 * MIB // PAGE_BYTES
_LEAST_RANGE_PAGES = 32 * MIB // PAGE_BYTES
_RANGES = 8
_SMALL_PAGES = 4 * MIB // PAGE_BYTES  # below this the driver is faster than starting psql
_LOOK_EVERY_S = 0.5  # whether reading was given up
_MOST_READERS = 4  # of rows, each of which keeps a process of the server busy


class PostgresSource:
    """
    One database, in one part named ``database``: its schema, then rows, then what goes with it.

    Everything is read in one snapshot of the server. Raises InvalidUrl and ConfigError for
    settings without sense.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._address = Address.parse(settings.url)
        if settings.include or settings.exclude or settings.one_file_system:
            raise ConfigError(
                f"source {settings.name} is a database, which has no include, exclude or"
                " one_file_system",
                "Remove them; a restore can choose tables with --include.",
            )
        self._position: dict[str, Any] = {}

    # ------------------------------------------------------------------ its log

    def preparation(self, consent: bool) -> list[str]:  # noqa: FBT001 - as the port names it
        """The SQL that `prepare` would run now."""
        return [step.sql for step in plan(self._address, replica_identity_full=consent)]

    def prepare(self, consent: bool) -> None:  # noqa: FBT001
        """Make the server keep this database's log; raises SourceUnprepared, SourceUnavailable."""
        prepare(self._address, replica_identity_full=consent)

    def release(self) -> list[str]:
        """Remove every trace of `prepare`; raises AlreadyRunning."""
        return release(self._address)

    def new_chain(self, *, renew: bool) -> LogHeader:
        """
        The opening segment of a chain that begins where our slot does, or where a new one does.

        Raises SourceUnprepared where the database was never prepared.
        """
        log = PostgresLog(self._address)
        if renew:
            return log.new_chain(renew_slot(self._address))
        with connected(self._address) as connection:
            return log.new_chain(prepared(connection, self._address))

    def follow(self, opening: LogHeader, last: LogHeader) -> AbstractContextManager[LogStream]:
        """Go on after ``last``; raises LogBroken, AlreadyRunning, SourceUnavailable."""
        return PostgresLog(self._address).follow(opening, last)

    # ------------------------------------------------------------------ what is in it

    def check(self) -> list[Finding]:
        """What of the server, the database and the user's rights would stop a backup."""
        return check(self._address)

    def parts(self) -> tuple[str, ...]:
        """Its one part."""
        return (PART,)

    def measure(self, part: str) -> Size:
        """How many entries there will be, and about how many bytes."""
        with connected(self._address) as connection:
            tables = tables_of(connection)
        return Size(
            sum(len(_ranges(table)) for table in tables),
            sum(table.pages * PAGE_BYTES for table in tables),
        )

    def dump(self, part: str, since: Iterator[Entry] | None) -> Dump:
        """
        The whole database; what has not changed is found by its chunks.

        Raises SourceMissing for a part it does not have.
        """
        if part != PART:
            raise SourceMissing(f"{self._address.shown} has no part {part!r}")
        return Dump(self._items(), [], readers=min(len(os.sched_getaffinity(0)), _MOST_READERS))

    def fold(self, since: Iterator[Entry], stretch: Stretch) -> Dump:
        """What was there before with what the log since comes to; raises LogBroken."""
        return Dump(self._folded(since, stretch), [])

    def position(self) -> dict[str, Any]:
        """Where the last dump stands in the log; empty where no slot keeps the log."""
        return self._position

    def _items(self) -> Iterator[Item | Barrier]:
        with exported(self._address) as (connection, snapshot):
            self._position = _position(snapshot)
            major = snapshot.version // 10_000
            dumping = _Dumping(connection, snapshot, self._address, programs_for(major))
            try:
                yield from dumping.items()
                yield Barrier()
                dumping.check()
            finally:
                dumping.end()

    def _folded(self, since: Iterator[Entry], stretch: Stretch) -> Iterator[Item | Barrier]:
        fold = Fold(stretch)
        with (
            connected(self._address) as connection,
            objects_now(connection, self._address) as objects,
        ):
            yield from folded_items(connection, since, fold, objects)
        self._position = folded_position(stretch, fold, objects.known_since)


def _position(snapshot: Exported) -> dict[str, Any]:
    if snapshot.at is None:
        return {}
    return {
        "log": f"{snapshot.system}/{snapshot.database}",
        "at": snapshot.at,
        "time": snapshot.time.isoformat(),
    }


class _Dumping:
    """One dump under way, in one snapshot."""

    def __init__(
        self, connection: Connection, snapshot: Exported, address: Address, programs: Path
    ) -> None:
        self._connection = connection
        self._snapshot = snapshot
        self._address = address
        self._programs = programs
        self._running: list[Program] = []
        self._turn = Lock()  # of who reads over our connection
        self._ended = False
        self._tables: list[Table] = []

    def end(self) -> None:
        """End the programs that nobody reads to their ends."""
        self._ended = True
        for program in self._running:
            program.end()

    def check(self) -> None:
        """Raise SourceUnavailable where what was read may not be what the snapshot holds."""
        changed = changed_since(self._connection, self._tables)
        if changed:
            raise SourceUnavailable(
                f"{self._address.shown}: table {changed[0]} was emptied, rewritten, renamed or"
                " dropped while the database was read",
                "Nothing is wrong with it: run the backup again, when no such change is made.",
            )

    def items(self) -> Iterator[Item]:
        refuse_schema(self._connection)
        if unseen := unseen_by(self._connection):
            raise SourceDenied(
                f"{self._address.shown}: user {self._address.user} may not read {unseen[0]}",
                "Let a superuser back up: to others the server does not show all of it.",
            )
        self._tables = tables_of(self._connection)
        items = [item for table in self._tables for item in self._of_table(table)]
        ranges = len(items)
        objects = list(self._large_objects())
        items += objects
        items.append(self._database(len(objects)))
        items.append(self._small(paths.ROLES, roles_of(self._connection)))
        items.append(self._small(paths.SEQUENCES, self._sequences()))
        items.append(self._schema(ranges))
        yield from sorted(items, key=lambda item: sort_key(item.entry.path))

    def _sequences(self) -> list[list[Any]]:
        try:
            return sequences_of(self._connection)
        except psycopg.Error as error:  # one that the snapshot sees may be gone by its name
            raise told_of_reading(error, self._address) from error

    def _of_table(self, table: Table) -> Iterator[Item]:
        ranges = _ranges(table)
        for number, (low, high) in enumerate(ranges):
            path = paths.data_path(table.schema, table.name, number)
            size = (min(high, table.pages) - low) * PAGE_BYTES
            meta: dict[str, Any] = {"columns": list(table.columns)}
            if table.extension:
                meta["needed"] = True
            if table.where:
                meta["where"] = table.where  # others of its rows come with the extension
            entry = Entry(path, EntryKind.FILE, size, meta=meta)
            yield Item(entry, self._rows(entry, table, low, high))

    def _rows(self, entry: Entry, table: Table, low: int, high: int) -> Any:
        query = _copy(table, low, high)
        if table.pages < _SMALL_PAGES:
            return lambda: PiecesReader(
                entry, self._alone(copied(self._connection, query)), self._address, count_rows=True
            )
        text = query.as_string(self._connection)

        def opened() -> Reader:
            name = self._snapshot.name
            encoding = encoding_of(self._connection)
            program = CopyProgram(self._programs, self._address, name, text, encoding)
            self._running.append(program)
            return CopyReader(entry, program)

        return opened

    def _large_objects(self) -> Iterator[Item]:
        for oid, meta in large_objects_of(self._connection):
            entry = Entry(paths.large_object_path(oid), EntryKind.FILE, 0, meta=meta)
            yield Item(entry, self._large_object(entry, oid))

    def _large_object(self, entry: Entry, oid: int) -> Any:
        return lambda: PiecesReader(
            entry, self._alone(large_object(self._connection, oid)), self._address
        )

    def _alone(self, pieces: Iterator[Blob]) -> Iterator[Blob]:
        while not self._turn.acquire(timeout=_LOOK_EVERY_S):
            if self._ended:  # who has the turn may never come to its end
                raise SourceUnavailable(f"{self._address.shown}: reading was given up")
        try:
            yield from pieces
        finally:
            self._turn.release()

    def _database(self, objects: int) -> Item:
        """With it, of when the large objects are: samples in the log go on from there."""
        at = self._snapshot.at
        if at is None:
            return self._small(paths.DATABASE, database_of(self._connection))
        mark = mark_of(at, self._snapshot.time, now_of(self._connection).horizon, objects)
        return self._small(paths.DATABASE, database_of(self._connection), mark)

    def _small(self, path: bytes, content: Any, mark: Mapping[str, Any] | None = None) -> Item:
        body = json.dumps(content, indent=1, sort_keys=True).encode()
        meta = {"needed": True} if mark is None else {"needed": True, MARK: mark}
        entry = Entry(path, EntryKind.FILE, len(body), meta=meta)
        return Item(entry, lambda: BytesReader(entry, body))

    def _schema(self, ranges: int) -> Item:
        """
        Read at once, before rows are: who waits for a table that our connection has read would make
        `pg_dump` wait behind it, and nobody but us could see that circle.
        """
        meta: dict[str, Any] = {"needed": True, "version": self._snapshot.version, "ranges": ranges}
        if saved := timescale_of(self._connection):
            meta["timescaledb"] = saved[0]
        name = self._snapshot.name
        encoding = encoding_of(self._connection)
        with schema_by_pg_dump(self._programs, self._address, name, SCHEMA, encoding) as program:
            try:
                body = program.read_all()
            except SourceError as error:
                raise SourceUnavailable(f"{self._address.shown}: {error.message}") from error
        entry = Entry(paths.SCHEMA_DUMP, EntryKind.FILE, len(body), meta=meta)
        return Item(entry, lambda: BytesReader(entry, body))


def _ranges(table: Table) -> list[tuple[int, int]]:
    """The pages of each entry; the last one is open, for rows that came since they were counted."""
    # By powers of two: as a table grows, most of its entries begin where they did.
    share = 1 << (table.pages // _RANGES).bit_length() >> 1
    pages = min(_RANGE_PAGES, max(_LEAST_RANGE_PAGES, share))
    starts = list(range(0, max(table.pages, 1), pages))
    return list(zip(starts, [*starts[1:], 2**32 - 1], strict=True))


def _copy(table: Table, low: int, high: int) -> sql.Composed:
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    if len(_ranges(table)) == 1 and table.columns and not table.where:
        # A table by its name alone is read without the planner and the executor.
        return sql.SQL("copy {} ({}) to stdout").format(table.identifier, columns)
    condition = sql.SQL("ctid >= {} and ctid < {}").format(
        sql.Literal(f"({low},0)"), sql.Literal(f"({high},0)")
    )
    if table.where:  # the extension's own words, such as: WHERE id > 100
        extra = table.where.strip().removeprefix("WHERE").removeprefix("where")
        condition = sql.SQL("{} and ({})").format(condition, sql.SQL(extra))
    return sql.SQL("copy (select {} from only {} where {}) to stdout").format(
        columns, table.identifier, condition
    )
