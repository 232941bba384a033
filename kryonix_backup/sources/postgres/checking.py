"""What of a server, a database and a user's rights would stop a backup or a log."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from kryonix_backup.errors import ConfigError, KryonixError
from kryonix_backup.sources.postgres.address import Address, slot_name
from kryonix_backup.sources.postgres.needs import identities, log_needs, named
from kryonix_backup.sources.postgres.preparing import steps_of
from kryonix_backup.sources.postgres.programs import programs_for
from kryonix_backup.sources.postgres.session import Connection, connected
from kryonix_backup.sources.source import Finding

_OLDEST, _NEWEST = 14, 18
_PREPARE = "kryonix source prepare ID NAME"


def check(address: Address) -> list[Finding]:
    """
    What was looked at, and the SQL or the command that mends what failed; changes nothing.

    A server that cannot be reached, or refuses, is one failed finding.
    """
    found: list[Finding] = []
    try:
        with connected(address) as connection:
            for finding in _findings(connection, address):
                found.append(finding._replace(mend="") if finding.passed else finding)
    except KryonixError as error:
        found.append(Finding("server", passed=False, evidence=error.message, mend=error.hint))
    return found


def _findings(connection: Connection, address: Address) -> Iterator[Finding]:
    major = connection.info.server_version // 10_000
    yield Finding(
        "server", _OLDEST <= major <= _NEWEST,
        f"{address.shown} answers, PostgreSQL {major}",
        f"Use a server of PostgreSQL {_OLDEST} to {_NEWEST}.",
    )  # fmt: skip
    yield _programs(major)
    yield from _rights(connection)
    yield from _sequences(connection)
    yield from log_needs(connection, address.database)
    yield from _room(connection)
    yield identities(connection)
    yield from _not_in_the_log(connection)
    yield _prepared(connection, address)
    yield from _slot(connection, slot_name(address.database))


def _programs(major: int) -> Finding:
    try:
        folder = programs_for(major)
    except ConfigError as error:
        return Finding("programs", passed=False, evidence=error.message, mend=error.hint)
    return Finding("programs", passed=True, evidence=str(folder))


def _rights(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(_RIGHTS).fetchone()
    assert row is not None
    user, superuser, reads, bypasses, replicates = row
    name = sql.Identifier(user).as_string(connection)
    missing = [] if superuser or reads else [f"grant pg_read_all_data to {name}"]
    missing += [] if superuser or bypasses else [f"alter role {name} bypassrls"]
    yield Finding(
        "rights to read", not missing,
        f"user {user} may {'not ' if missing else ''}read everything", "; ".join(missing),
    )  # fmt: skip
    yield Finding(
        "right to replicate", superuser or replicates,
        f"user {user} may {'' if superuser or replicates else 'not '}follow a log",
        f"alter role {name} replication",
    )  # fmt: skip


def _sequences(connection: Connection) -> Iterator[Finding]:
    """Their values are read as NULL, without an error, by who may not."""
    names = [row[0] for row in connection.execute(_UNREADABLE)]
    user = sql.Identifier(connection.info.user).as_string(connection)
    if names:
        yield Finding(
            "sequences", passed=False, evidence=f"cannot be read: {named(names)}",
            mend=f"grant pg_read_all_data to {user}",
        )  # fmt: skip


def _room(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(_ROOM).fetchone()
    assert row is not None
    senders, sending, keeps, text = row
    yield Finding(
        "WAL senders", sending + 1 < senders, f"{sending} of {senders} are used, two are needed",
        f"alter system set max_wal_senders = {senders + 10}; and restart the server",
    )  # fmt: skip
    yield Finding(
        "max_slot_wal_keep_size", keeps >= 0,
        text if keeps >= 0 else "is unbounded: a log that nobody follows would fill the disk",
        "alter system set max_slot_wal_keep_size = '20GB'; select pg_reload_conf();",
    )  # fmt: skip


def _not_in_the_log(connection: Connection) -> Iterator[Finding]:
    unlogged = [row[0] for row in connection.execute(_UNLOGGED)]
    said = f"only the schema of these is saved: {named(unlogged)}" if unlogged else "none"
    yield Finding("unlogged tables", passed=True, evidence=said)
    row = connection.execute(_ELSEWHERE).fetchone()
    assert row is not None
    objects, timescale = row
    said = "they are in every backup, but changes between two are in no log" if objects else "none"
    yield Finding("large objects", passed=True, evidence=said)
    if timescale:
        yield Finding(
            "TimescaleDB", passed=False,
            evidence=f"version {timescale}: changes of compressed chunks cannot be followed",
            mend="Restore to the times of backups alone, or leave chunks uncompressed.",
        )  # fmt: skip


def _prepared(connection: Connection, address: Address) -> Finding:
    try:
        steps = steps_of(connection, address.database, consent=False)
    except KryonixError as error:
        return Finding("prepared", passed=False, evidence=error.message, mend=error.hint)
    lacking = (
        f"not prepared: {len(steps)} steps are missing, {steps[0].sql[:60]!r} first"
        if steps
        else ""
    )
    return Finding(
        "prepared", not steps,
        lacking or "publication, event triggers and slot are there; log may be followed", _PREPARE,
    )  # fmt: skip


def _slot(connection: Connection, name: str) -> Iterator[Finding]:
    row = connection.execute(_SLOT, (name,)).fetchone()
    if row is None:
        return
    status, safe, kept, active = row
    left = "" if safe is None else f", {safe} bytes until it is lost"
    yield Finding(
        "slot", status in {"reserved", "extended"},
        f"{name} is {status}, {'followed' if active else 'not followed'},"
        f" and keeps {kept} bytes of WAL{left}",
        "Follow it with: kryonix backup ID --kind log; one that is lost begins anew with"
        " kryonix backup ID --kind full.",
    )  # fmt: skip


_RIGHTS = """
select r.rolname, r.rolsuper, pg_has_role(r.oid, 'pg_read_all_data', 'usage'),
       r.rolbypassrls, r.rolreplication
from pg_roles r where r.rolname = current_user
"""
_UNREADABLE = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relpersistence <> 't'
  and case when c.relkind = 'S' then not has_sequence_privilege(c.oid, 'select, usage') end
order by 1
"""
_ROOM = """
select current_setting('max_wal_senders')::int,
       (select count(*) from pg_stat_activity where backend_type = 'walsender')::int,
       (select setting::int8 from pg_settings where name = 'max_slot_wal_keep_size'),
       current_setting('max_slot_wal_keep_size')
"""
_UNLOGGED = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'u' order by 1
"""
_ELSEWHERE = """
select exists (select from pg_largeobject_metadata),
       (select extversion from pg_extension where extname = 'timescaledb')
"""
_SLOT = """
select coalesce(wal_status, 'lost'), safe_wal_size,
       pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8, active
from pg_replication_slots where slot_name = %s
"""
