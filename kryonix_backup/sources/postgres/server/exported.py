"""One moment of a database that several connections and programs can look at."""

from __future__ import annotations

import secrets
import select
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import psycopg
from psycopg import pq, sql

from kryonix_backup.errors import SourceUnavailable, SourceUnprepared
from kryonix_backup.sources.postgres.server.address import Address, slot_name
from kryonix_backup.sources.postgres.server.session import (
    Connection,
    connected,
    conninfo,
    translated,
)

_SLOT_SECONDS = 60.0


class Exported(NamedTuple):
    """
    A snapshot that lasts as long as its context.

    ``at`` is the LSN that parts what is in it from what comes after, None where the database's log
    is not kept. ``time`` is not before any commit that is in it.
    """

    name: str
    at: int | None
    time: datetime
    system: str
    database: int
    version: int


@contextmanager
def exported(address: Address) -> Iterator[tuple[Connection, Exported]]:
    """
    A snapshot, and a connection that looks at it.

    Where our slot keeps the database's log, the snapshot is that of a temporary slot, whose place
    in the log is exact. Raises SourceUnavailable where open transactions keep it from being made.
    """
    with connected(address) as connection:
        system, database, version, prepared = _facts(connection, address)
        if prepared:
            with _of_temporary_slot(address) as (name, at):
                yield connection, _entered(connection, name, at, system, database, version)
            return
        with connected(address) as holder, translated(address):
            holder.execute("begin isolation level repeatable read read only")
            row = holder.execute("select pg_export_snapshot()").fetchone()
            assert row is not None
            yield connection, _entered(connection, row[0], None, system, database, version)


def _facts(connection: Connection, address: Address) -> tuple[str, int, int, bool]:
    row = connection.execute(
        "select (select system_identifier::text from pg_control_system()),"
        " (select oid::int8 from pg_database where datname = current_database()),"
        " current_setting('server_version_num')::int,"
        " exists (select from pg_replication_slots where slot_name = %s"
        "         and database = current_database())",
        (slot_name(address.database),),
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2], row[3]


def _entered(
    connection: Connection, name: str, at: int | None, system: str, database: int, version: int
) -> Exported:
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    connection.execute("begin isolation level repeatable read read only")
    connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(name)))
    return Exported(name, at, row[0], system, database, version)


@contextmanager
def _of_temporary_slot(address: Address) -> Iterator[tuple[str, int]]:
    with translated(address):
        connection = psycopg.connect(conninfo(address, replication="database"), autocommit=True)
    try:
        slot = f"kryonix_full_{secrets.token_hex(8)}"
        command = f"CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT"
        connection.pgconn.send_query(command.encode())
        result = _answer(connection, address)
        at, name = result.get_value(0, 1), result.get_value(0, 2)
        assert at is not None
        assert name is not None
        yield name.decode(), lsn_of(at.decode())
    finally:
        connection.close()


def _answer(
    connection: psycopg.Connection[tuple[object, ...]], address: Address
) -> pq.abc.PGresult:
    """The new slot; waiting for the transactions that are open now has an end."""
    pgconn = connection.pgconn
    while pgconn.is_busy():
        ready, _, _ = select.select([pgconn.socket], [], [], _SLOT_SECONDS)
        if not ready:
            connection.cancel_safe(timeout=5.0)
            raise SourceUnavailable(
                f"{address.shown}: transactions that are open now, in any database of the server,"
                f" kept a snapshot from being made for {_SLOT_SECONDS:.0f} seconds",
                "End them (see pg_stat_activity, the oldest xact_start, and pg_prepared_xacts),"
                " then run the backup again.",
            )
        pgconn.consume_input()
    result = pgconn.get_result()
    assert result is not None
    if result.status != pq.ExecStatus.TUPLES_OK:
        said = " ".join(result.error_message.decode("utf-8", "replace").split())
        raise SourceUnprepared(f"{address.shown}: no snapshot of the log could be made: {said}")
    return result


def lsn_of(text: str) -> int:
    """A position in the WAL, as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
