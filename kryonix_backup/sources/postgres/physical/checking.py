"""What of a server and a user's rights would stop a physical backup, or a log that is kept."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from kryonix_backup.errors import KryonixError
from kryonix_backup.sources.postgres.physical.address import SLOT, ClusterAddress
from kryonix_backup.sources.postgres.physical.slot import databases, look_at, shared, slot_of
from kryonix_backup.sources.postgres.preparation.needs import gathered, room, wal_kept
from kryonix_backup.sources.postgres.server.session import APPLICATION, Connection, connected
from kryonix_backup.sources.source import Finding

OLDEST, NEWEST = 15, 18
_INCREMENTAL = 17
_PREPARE = "kryonix source prepare ID NAME"


def check(address: ClusterAddress) -> list[Finding]:
    """
    What was looked at, and the SQL or the command that mends what failed; changes nothing.

    A server that cannot be reached, or refuses, is one failed finding. What only a log needs begins
    with ``log`` and fails only where one is to be kept: a source may do without.
    """
    return gathered(_name(address), _looked_at(address))


def _name(address: ClusterAddress) -> str:
    return f"the cluster {address.shown}"


def _looked_at(address: ClusterAddress) -> Iterator[Finding]:
    with connected(address.server) as connection:
        yield from _findings(connection, address)


def _findings(connection: Connection, address: ClusterAddress) -> Iterator[Finding]:
    version = connection.info.server_version // 10_000
    look_at(connection, address)
    yield Finding(
        _name(address), OLDEST <= version <= NEWEST,
        f"it answers; its server is PostgreSQL {version}",
        f"Physical backups are made of PostgreSQL {OLDEST} to {NEWEST}.",
    )  # fmt: skip
    yield _own(connection, address)
    yield from _server(connection)
    yield _incremental(connection, version)
    yield from _log(connection, address)


def _own(connection: Connection, address: ClusterAddress) -> Finding:
    reason = shared(connection, address)
    if reason is not None:
        return Finding("a cluster of one tenant", False, reason.message, reason.hint)
    held = ", ".join(databases(connection)) or "no database yet"
    said = " (said to be all of this tenant)" if address.own else ""
    return Finding(
        "a cluster of one tenant", True,
        f"a backup holds every database of the server: {held}{said}",
    )  # fmt: skip


def _server(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(_SERVER).fetchone()
    assert row is not None
    level, replicates, user, spaces, synchronous, slots, used = row
    yield Finding(
        "wal_level", level != "minimal", level,
        "alter system set wal_level = 'replica'; and restart the server",
    )  # fmt: skip
    yield Finding(
        "right to replicate", replicates,
        f"user {user} may {'' if replicates else 'not '}read the cluster's files and its WAL",
        f"alter role {sql.Identifier(user).as_string(connection)} replication",
    )  # fmt: skip
    yield Finding(
        "replication slots", used < slots, f"{used} of {slots} are used; a backup needs one",
        f"alter system set max_replication_slots = {max(slots, used) + 10}; and restart the server",
    )  # fmt: skip
    yield Finding(
        "tablespaces", not spaces, f"{spaces} outside of the data directory",
        "Move their tables into pg_default, or back up its databases one by one.",
    )  # fmt: skip
    waited_for = "*" in synchronous or APPLICATION in synchronous
    yield Finding(
        "synchronous_standby_names", not waited_for, synchronous or "none",
        "Name the standbys: with * every commit would wait until our segment is stored.",
    )  # fmt: skip


def _incremental(connection: Connection, version: int) -> Finding:
    if version < _INCREMENTAL:
        return Finding(
            "incremental backups", True,
            f"PostgreSQL {version} makes none (17 is the first that does): each is a full one",
        )  # fmt: skip
    row = connection.execute("select current_setting('summarize_wal')").fetchone()
    assert row is not None
    off = "summarize_wal is off: each is a full one. To have them: alter system set summarize_wal"
    said = "summarize_wal is on" if row[0] == "on" else f"{off} = 'on'; select pg_reload_conf();"
    return Finding("incremental backups", True, said)


def _log(connection: Connection, address: ClusterAddress) -> Iterator[Finding]:
    try:
        found = slot_of(connection)
    except KryonixError as error:
        yield Finding("log: slot", False, error.message, error.hint)
        return
    if found is None:
        yield Finding(
            "log", True,
            "not prepared: only the times of backups can be restored, and not those between;"
            f" '{_PREPARE}' begins a log",
        )  # fmt: skip
        return
    yield from room(connection)
    row = connection.execute(_KEPT, (SLOT,)).fetchone()
    assert row is not None
    kept, safe = row
    yield Finding(
        "log: slot", not found.lost,
        f"{SLOT} is {found.lost or 'kept'},"
        f" {'not followed' if found.active is None else 'followed'},"
        f" and keeps {wal_kept(kept, safe)}",
        "Run: kryonix backup ID --kind log; it begins anew where the slot is lost, and then needs:"
        " kryonix backup ID --kind full",
    )  # fmt: skip


_SERVER = """
select current_setting('wal_level'), rolsuper or rolreplication, rolname,
       (select count(*)::int from pg_tablespace where spcname not in ('pg_default', 'pg_global')),
       current_setting('synchronous_standby_names'),
       current_setting('max_replication_slots')::int,
       (select count(*)::int from pg_replication_slots)
from pg_roles where rolname = current_user
"""
_KEPT = """
select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8, safe_wal_size
from pg_replication_slots where slot_name = %s
"""
