"""
TimescaleDB: an extension that wants to know of a restore, and of its own version alone.

The rows of a hypertable are in its chunks, which are tables: they are saved and loaded as such,
with the extension's own catalog. No log is kept of such a database: the extension makes, compresses
and drops chunks by itself, and none of that is a statement that a log would hold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from psycopg import sql

from kryonix_backup.errors import RestoreError
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection, connected
from kryonix_backup.sources.source import Finding

log = logging.getLogger(__name__)

AWAKE = "-c timescaledb.restoring=off"
"""What lets a session see the rows of compressed chunks while the extension rests."""

_NAME = "timescaledb"
_FOUND = """
select e.extversion, n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
where e.extname = %s
"""
_AVAILABLE = "select version from pg_available_extension_versions where name = %s order by 1"
_LOADED = r"""
select current_setting('shared_preload_libraries') ~ '\mtimescaledb\M'
    or coalesce(current_setting('timescaledb.allow_install_without_preload', true), '')
       in ('on', 'true', 'yes', '1')
"""
# A setting of the database may make its sessions read-only.
_WRITING = "-c default_transaction_read_only=off"
# In a schema that the tenant may write to, a function of this name could be meant to run as ours.
_STRANGE = """
select from pg_proc p
where p.proname = 'alter_job' and p.pronamespace = %s::regnamespace
  and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass
                  and d.objid = p.oid and d.deptype = 'e')
"""
# Jobs have no history in a new database, and would all begin at once: a retention policy would drop
# the old chunks that were just brought back. Those below 1000 are the extension's own.
_LATER = """
select {alter}(id, next_start => now() + schedule_interval) from _timescaledb_config.bgw_job
where id >= 1000 and scheduled
"""


def timescale_of(connection: Connection) -> list[str] | None:
    """Version and schema of the extension in this database; None without it."""
    row = connection.execute(_FOUND, (_NAME,)).fetchone()
    return None if row is None else list(row)


def timescale_finding(connection: Connection) -> Iterator[Finding]:
    """What holds for the backups of a database with TimescaleDB; nothing of one without."""
    saved = timescale_of(connection)
    if saved is not None:
        yield Finding(
            "TimescaleDB", True,
            f"version {saved[0]}: backups are complete, and need that version where they are"
            " restored; for the moments between them give it a cluster of its own"
            " (postgresql+physical://)",
        )  # fmt: skip


def timescale_log(connection: Connection) -> Iterator[Finding]:
    """
    That no log is to be kept of a database with TimescaleDB; nothing of one without.

    A publication of all tables, which a log needs, would keep the tenant from making hypertables.
    """
    saved = timescale_of(connection)
    if saved is not None:
        yield Finding(
            "log: TimescaleDB", False,
            f"version {saved[0]}: it makes, compresses and drops chunks without a word in the log,"
            " and refuses to make a hypertable that is in a publication, as all tables would be",
            "Give it a cluster of its own, and back that up as"
            " postgresql+physical://user@host:port/, whose log holds everything.",
        )  # fmt: skip


def check_timescale(connection: Connection, address: Address, version: str | None) -> None:
    """Raise RestoreError where a server cannot run the version that a database was saved with."""
    if version is None:
        return
    there = [str(row[0]) for row in connection.execute(_AVAILABLE, (_NAME,))]
    if version not in there:
        has = f"has {', '.join(there)}" if there else "has none"
        raise RestoreError(
            f"{address.shown}: the saved database needs TimescaleDB {version}; its server {has}",
            f"Install TimescaleDB {version} there, or restore to a server that has it with --to.",
        )
    row = connection.execute(_LOADED.encode()).fetchone()
    if row is None or not row[0]:
        raise RestoreError(
            f"{address.shown}: the saved database needs TimescaleDB, which is installed there, but"
            " its server does not load it",
            f"Add {_NAME} to shared_preload_libraries there and restart the server, or restore to"
            " one that loads it with --to.",
        )


def rest(address: Address, saved: Sequence[str]) -> None:
    """Make the extension in a new database, and let it rest while that is filled, until `wake`."""
    version, schema = saved
    with connected(address) as connection:
        connection.execute(
            sql.SQL("create extension {} with schema {} version {}").format(
                sql.Identifier(_NAME), sql.Identifier(schema), sql.Literal(version)
            )
        )
        connection.execute(_call(schema, "pre"))


def wake(address: Address, *, is_new: bool) -> None:
    """
    Let the extension of a database, where there is one, work; twice does no harm.

    In a new one each job begins an interval from now, as if it had just run. A server stops what
    works in a database that it renames, so that is woken again. Raises what `translated` raises
    where the extension finds a catalog that is not its own.
    """
    with connected(address, options=_WRITING) as connection:
        saved = timescale_of(connection)
        if saved is None:
            return
        with connection.transaction():
            connection.execute(_call(saved[1], "post"))
            if is_new:
                _delay_jobs(connection, address, saved[1])


def _delay_jobs(connection: Connection, address: Address, schema: str) -> None:
    name = sql.Identifier(schema)
    if connection.execute(_STRANGE, (name.as_string(connection),)).fetchone() is not None:
        log.warning(
            "%s: its TimescaleDB jobs begin at once: there is a second function alter_job in schema"
            " %s, which might be called instead of the extension's",
            address.shown,
            schema,
        )
        return
    connection.execute(sql.SQL(_LATER).format(alter=sql.Identifier(schema, "alter_job")))


def _call(schema: str, when: str) -> sql.Composed:
    return sql.SQL("select {}()").format(sql.Identifier(schema, f"{_NAME}_{when}_restore"))
