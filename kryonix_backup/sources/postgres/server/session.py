"""Connections to a tenant's database, with the settings that make its text mean one thing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo

from kryonix_backup.errors import (
    AlreadyRunning,
    KryonixError,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
    TargetFull,
)
from kryonix_backup.sources.postgres.server.address import Address

Connection = psycopg.Connection[tuple[Any, ...]]

# Text of values depends on these: times, intervals, floats, bytes, money, names of tables. A
# server, a database or a role may set others. A scan that joins another one half way would spoil
# deduplication, and a policy that hides rows is an error here, never a smaller backup.
SETTINGS = {
    "DateStyle": "ISO,YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "search_path": "pg_catalog,pg_temp",  # pg_temp comes first where it is not named
    "synchronize_seqscans": "off",
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "0",
}
APPLICATION = "kryonix-backup"
_CONNECT_SECONDS = "10"
# A database of this encoding has bytes of any; what is called so passes every one of them.
_ANY_BYTES, _AS_THEY_ARE = "SQL_ASCII", "LATIN1"


def conninfo(address: Address, *, options: str = "", **more: str) -> str:
    """The connection string for libpq and its programs; it holds no password."""
    settings = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
    words = {
        "application_name": APPLICATION,
        "connect_timeout": _CONNECT_SECONDS,
        "client_encoding": "UTF8",
        "options": f"{settings} {options}",
        **address.words(),
        **more,
    }
    return make_conninfo("", **words)


@contextmanager
def connected(address: Address, **more: str) -> Iterator[Connection]:
    """A connection that commits each statement; raises what `translated` raises."""
    with translated(address):
        # Nothing is prepared: code of a tenant in our session could give the name another meaning.
        connection = psycopg.connect(
            conninfo(address, **more), autocommit=True, prepare_threshold=None
        )
    try:
        with translated(address):
            if more.get("replication") != "true":  # such a one runs no SQL, and sends no text
                connection.execute(f"set client_encoding to {encoding_of(connection)}".encode())
            yield connection
    finally:
        connection.close()


def encoding_of(connection: Connection) -> str:
    """What a program has to call the text of this connection's database, to lose nothing of it."""
    server = connection.info.parameter_status("server_encoding")
    return _AS_THEY_ARE if server == _ANY_BYTES else "UTF8"


@contextmanager
def to_primary(address: Address) -> Iterator[Connection]:
    """A connection to a server that can be written to; raises what `refuse_standby` raises too."""
    with connected(address) as connection:
        refuse_standby(connection, address)
        yield connection


def refuse_standby(connection: Connection, address: Address) -> None:
    """Raise SourceUnavailable where nothing can be written, and so nothing said in the log."""
    row = connection.execute("select pg_is_in_recovery()").fetchone()
    if row is not None and row[0]:
        raise SourceUnavailable(
            f"{address.shown}: the server is a standby, which has no log of its own",
            "Name the primary in the source's address, or promote this server; a log goes on there"
            " where its slot was kept in step (failover slots, PostgreSQL 17 and later).",
        )


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn the driver's errors into ours; those about the database's own state name the address."""
    try:
        yield
    except psycopg.Error as error:
        raise told(error, address) from error


def told(error: psycopg.Error, address: Address) -> KryonixError:
    """The error that an operator can act on."""
    reason = _reason(error)
    where = address.shown
    for kinds, ours in _MEANINGS:
        if isinstance(error, kinds):
            return ours(f"{where}: {reason}")
    if (error.sqlstate or "").startswith("08"):  # the class of broken connections
        return SourceUnavailable(f"{where}: {reason}")
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        return _of_connecting(where, reason)
    return SourceError(f"{where}: {reason}")


# Errors of one class of PostgreSQL's, and what they mean to an operator.
_MEANINGS: tuple[tuple[tuple[type[psycopg.Error], ...], type[KryonixError]], ...] = (
    (
        (pg.InvalidPassword, pg.InvalidAuthorizationSpecification, pg.InsufficientPrivilege),
        SourceDenied,
    ),
    ((pg.InvalidCatalogName,), SourceMissing),
    ((pg.DiskFull,), TargetFull),
    ((pg.ObjectInUse,), AlreadyRunning),
    (
        (pg.TooManyConnections, pg.CannotConnectNow, pg.AdminShutdown, pg.CrashShutdown,
         pg.DeadlockDetected, pg.LockNotAvailable, pg.QueryCanceled,
         pg.SerializationFailure, pg.OutOfMemory, pg.IdleSessionTimeout),
        SourceUnavailable,
    ),
)  # fmt: skip

# A refusal to connect comes as text alone.
_REFUSALS: tuple[tuple[re.Pattern[str], type[KryonixError]], ...] = (
    (re.compile(r"authentication failed|no pg_hba\.conf entry|no password supplied"), SourceDenied),
    (
        re.compile(r'role ".*" (does not exist|is not permitted to log in)|permission denied'),
        SourceDenied,
    ),
    (re.compile(r'database ".*" does not exist'), SourceMissing),
    (re.compile(r"No space left on device"), TargetFull),
)


def _of_connecting(where: str, reason: str) -> KryonixError:
    for pattern, ours in _REFUSALS:
        if pattern.search(reason):
            return ours(f"{where}: {reason}")
    return SourceUnavailable(f"{where}: {reason}")


def _reason(error: psycopg.Error) -> str:
    """What the server said, in one line and without the statement."""
    said = error.diag.message_primary or str(error)
    detail = error.diag.message_detail
    first = " ".join(said.split())
    return f"{first} ({' '.join(detail.split())})" if detail else first
