"""
TimescaleDB: an extension that wants to know of a restore, and of its own version alone.

The rows of a hypertable are in its chunks, which are tables: they are saved and replayed as such.
What the extension does by itself, such as making or compressing a chunk, is in no log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from psycopg import sql

from kryonix_backup.errors import RestoreError
from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.session import Connection, connected
from kryonix_backup.sources.source import Finding

_NAME = "timescaledb"
_FOUND = """
select e.extversion, n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
where e.extname = %s
"""
_AVAILABLE = "select version from pg_available_extension_versions where name = %s order by 1"
_PHYSICAL = (
    "Give it a cluster of its own, and back that up as postgresql+physical://user@host:port/, whose"
    " log holds everything."
)


def timescale_of(connection: Connection) -> list[str] | None:
    """Version and schema of the extension in this database; None without it."""
    row = connection.execute(_FOUND, (_NAME,)).fetchone()
    return None if row is None else list(row)


def timescale_findings(connection: Connection, *, kept: bool) -> Iterator[Finding]:
    """What holds for the backups of a database with TimescaleDB, and for a log that is ``kept``."""
    saved = timescale_of(connection)
    if saved is None:
        return
    yield Finding(
        "TimescaleDB", True,
        f"version {saved[0]}: backups are complete, and need that version where they are restored;"
        " for the moments between them give it a cluster of its own (postgresql+physical://)",
    )  # fmt: skip
    if kept:
        yield Finding(
            "log: TimescaleDB", False,
            f"version {saved[0]}: compressed chunks, and chunks made since the full backup, are in"
            " no log; a moment that needs one cannot be restored",
            _PHYSICAL,
        )  # fmt: skip


def check_timescale(connection: Connection, address: Address, version: str | None) -> None:
    """Raise RestoreError where a server lacks the version that a database was saved with."""
    if version is None:
        return
    there = [str(row[0]) for row in connection.execute(_AVAILABLE, (_NAME,))]
    if version not in there:
        has = f"has {', '.join(there)}" if there else "has none"
        raise RestoreError(
            f"{address.shown}: the saved database needs TimescaleDB {version}; its server {has}",
            f"Install TimescaleDB {version} there, or restore to a server that has it with --to.",
        )


@contextmanager
def restoring(address: Address, saved: Sequence[str] | None) -> Iterator[None]:
    """Let the extension, where there is one, rest while its database is filled."""
    if saved is None:
        yield
        return
    version, schema = saved
    with connected(address) as connection:
        connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
        connection.execute(
            sql.SQL("create extension {} with schema {} version {}").format(
                sql.Identifier(_NAME), sql.Identifier(schema), sql.Literal(version)
            )
        )
        connection.execute(_call(schema, "pre"))
    yield
    with connected(address) as connection:
        connection.execute(_call(schema, "post"))


def _call(schema: str, when: str) -> sql.Composed:
    return sql.SQL("select {}()").format(sql.Identifier(schema, f"{_NAME}_{when}_restore"))
