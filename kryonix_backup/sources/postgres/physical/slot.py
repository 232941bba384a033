"""Our physical slot on a cluster, whose cluster it is, and our beat in its WAL."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from kryonix_backup.errors import AlreadyRunning, SourceUnprepared
from kryonix_backup.sources.postgres.physical.address import SLOT, ClusterAddress
from kryonix_backup.sources.postgres.preparation.needs import named
from kryonix_backup.sources.postgres.server.exported import lsn_of
from kryonix_backup.sources.postgres.server.session import Connection, connected

_PREPARE = f"select pg_create_physical_replication_slot('{SLOT}', true)"
_RELEASE = f"select pg_drop_replication_slot('{SLOT}')"


class Cluster(NamedTuple):
    """What identifies a cluster, and what a copy of it needs to be brought back."""

    version: int
    system: str
    timeline: int
    segment: int
    mode: int
    superuser: str


class Slot(NamedTuple):
    """Our slot as it is now; ``start`` is the LSN from which on it keeps the WAL."""

    active: int | None
    lost: str | None
    start: int | None


class Beat(NamedTuple):
    """A commit of ours: everything up to ``time`` is before it, and it is before ``end``."""

    time: datetime
    end: int


def look_at(connection: Connection, address: ClusterAddress) -> Cluster:
    """What the cluster is; raises SourceUnprepared for a standby."""
    standby = connection.execute("select pg_is_in_recovery()").fetchone()
    if standby is None or standby[0]:
        raise SourceUnprepared(
            f"{address.shown} is a standby", "Name the server that it follows in the address."
        )
    row = connection.execute(_CLUSTER).fetchone()
    assert row is not None
    version, system, timeline, segment, mode, superuser = row
    return Cluster(version, system, int(timeline, 16), segment, int(mode, 8), superuser)


def databases(connection: Connection) -> list[str]:
    """The databases that hold something: one tenant's, or several's."""
    return [str(row[0]) for row in connection.execute(_DATABASES)]


def shared(connection: Connection, address: ClusterAddress) -> SourceUnprepared | None:
    """Why this is no cluster of one tenant; None where it may be one."""
    found = databases(connection)
    if address.own or len(found) < 2:
        return None
    return SourceUnprepared(
        f"{address.shown} holds {len(found)} databases ({named(found)}): a physical backup holds"
        " every one of them, and cannot be that of one tenant among several",
        "Back up one database of a shared server with postgresql://user@host:port/database. Where"
        f" all of them are this tenant's, say so: {address.shown}?own=yes.",
    )


def refuse_shared(connection: Connection, address: ClusterAddress) -> None:
    """Raise SourceUnprepared where the cluster visibly holds databases of several tenants."""
    if (reason := shared(connection, address)) is not None:
        raise reason


def slot_of(connection: Connection) -> Slot | None:
    """Our slot; None where there is none. Raises SourceUnprepared where it is not ours."""
    row = connection.execute(_SLOT, (SLOT,)).fetchone()
    if row is None:
        return None
    kind, active, lost, start = row
    if kind != "physical":
        raise SourceUnprepared(
            f"the server has a slot {SLOT} that is not ours", "Drop it, or give it another name."
        )
    return Slot(active, lost, None if start is None else lsn_of(start))


def missing(connection: Connection) -> list[str]:
    """The SQL that `prepare` would run now."""
    return [] if slot_of(connection) is not None else [_PREPARE]


def prepare(address: ClusterAddress) -> None:
    """Make our slot where it is missing; raises SourceUnprepared and what `connected` raises."""
    with connected(address.server) as connection:
        refuse_shared(connection, address)
        for statement in missing(connection):
            connection.execute(statement.encode())


def release(address: ClusterAddress) -> list[str]:
    """Drop our slot; what was removed. Raises AlreadyRunning where it is being read."""
    with connected(address.server) as connection:
        return [f"replication slot {SLOT}"] if _drop(connection, address) else []


def begin(connection: Connection, address: ClusterAddress, *, renew: bool) -> int:
    """
    The LSN from which on our slot keeps everything.

    With ``renew``, or where the server gave it up, it is made anew. Raises SourceUnprepared where
    there is none, and AlreadyRunning.
    """
    refuse_shared(connection, address)
    found = slot_of(connection)
    if found is None and not renew:
        raise SourceUnprepared(f"{address.shown} has no slot {SLOT}, which keeps its log")
    if renew or (found is not None and (found.lost or found.start is None)):
        _drop(connection, address)
        connection.execute(_PREPARE.encode())
        found = slot_of(connection)
    assert found is not None
    assert found.start is not None
    return found.start


def beat(connection: Connection) -> Beat:
    """
    Commit something that means nothing, so that every time before it can be recovered to.

    Recovery stops at the first commit later than its target, and fails without one. Our commit is
    never earlier than the time that was asked for just before, so what is a microsecond earlier
    is reached in any case.
    """
    connection.execute("set synchronous_commit = 'local'")  # no standby is waited for
    row = connection.execute(_BEAT).fetchone()
    assert row is not None
    end = connection.execute("select pg_current_wal_flush_lsn()::text").fetchone()
    assert end is not None
    return Beat(row[0] - timedelta(microseconds=1), lsn_of(end[0]))


def refuse_active(found: Slot | None, address: ClusterAddress) -> None:
    """Raise AlreadyRunning where our slot is being read."""
    if found is not None and found.active is not None:
        raise AlreadyRunning(
            f"another process follows the log of {address.shown}: slot {SLOT} is read by process"
            f" {found.active} of the server"
        )


def _drop(connection: Connection, address: ClusterAddress) -> bool:
    found = slot_of(connection)
    refuse_active(found, address)
    if found is not None:
        connection.execute(_RELEASE.encode())
    return found is not None


_BEAT = "select clock_timestamp(), pg_logical_emit_message(true, 'kryonix', '')"
_CLUSTER = """
select current_setting('server_version_num')::int,
       (select system_identifier::text from pg_control_system()),
       left(pg_walfile_name(pg_current_wal_lsn()), 8),
       (select setting::int8 from pg_settings where name = 'wal_segment_size'),
       current_setting('data_directory_mode'), (select rolname::text from pg_roles where oid = 10)
"""
_DATABASES = """
select datname from pg_database where not datistemplate and datname <> 'postgres'
union all
select 'postgres' where exists (
    select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'm') and n.nspname !~ '^pg_'
      and n.nspname not in ('information_schema', 'kryonix'))
order by 1
"""
_SLOT = """
select slot_type, active_pid, case when wal_status = 'lost' then wal_status end, restart_lsn::text
from pg_replication_slots where slot_name = %s
"""
