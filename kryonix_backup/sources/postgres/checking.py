"""What of a server, a database and a user's rights would stop a backup, or a log that is kept."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from kryonix_backup.errors import ConfigError, KryonixError
from kryonix_backup.sources.postgres.dumping.contents import unseen_by
from kryonix_backup.sources.postgres.preparation.needs import (
    Found,
    gathered,
    identities,
    log_needs,
    named,
    not_in_the_log,
    refuse_schema,
    room,
    wal_kept,
)
from kryonix_backup.sources.postgres.preparation.preparing import steps_of
from kryonix_backup.sources.postgres.server.address import SCHEMA, Address, slot_name
from kryonix_backup.sources.postgres.server.programs import programs_for
from kryonix_backup.sources.postgres.server.session import Connection, connected, refuse_standby
from kryonix_backup.sources.postgres.server.timescale import timescale_finding
from kryonix_backup.sources.postgres.server.turn import holder
from kryonix_backup.sources.source import Finding

OLDEST, NEWEST = 14, 18
_PREPARE = "kryonix source prepare ID NAME"


def check(address: Address) -> list[Finding]:
    """
    What was looked at, and the SQL or the command that mends what failed; changes nothing.

    A server that cannot be reached, or refuses, is one failed finding. What only a log needs begins
    with ``log`` and fails only where one is to be kept: a source may do without.
    """
    return gathered(_name(address), _looked_at(address))


def _name(address: Address) -> str:
    return f"the database {address.shown}"


def _looked_at(address: Address) -> Iterator[Finding]:
    with connected(address) as connection:
        yield from _findings(connection, address)


def _findings(connection: Connection, address: Address) -> Iterator[Finding]:
    version = connection.info.server_version // 10_000
    yield Finding(
        _name(address),
        OLDEST <= version <= NEWEST,
        f"it answers; its server is PostgreSQL {version}",
        f"This version of kryonix-backup knows PostgreSQL {OLDEST} to {NEWEST}.",
    )
    yield _programs(version)
    yield _schema(connection)
    yield from _readable(connection)
    yield from _log(connection, address)
    yield from timescale_finding(connection)
    unlogged = _names(connection, _UNLOGGED)
    if unlogged:
        yield Finding(
            "unlogged tables",
            True,
            f"only their schema is saved, as after a crash of the server: {named(unlogged)}",
        )


def _programs(version: int) -> Finding:
    try:
        return Finding("PostgreSQL's programs", True, f"they are in {programs_for(version)}")
    except ConfigError as error:
        return Finding("PostgreSQL's programs", False, error.message, error.hint)


def _schema(connection: Connection) -> Finding:
    what = f"the schema {SCHEMA}"
    try:
        refuse_schema(connection)
    except KryonixError as error:
        return Finding(what, False, error.message, error.hint)
    return Finding(what, True, "the tenant has none of that name")


def _readable(connection: Connection) -> Iterator[Finding]:
    """Of these pg_dump reads nothing, or everything but what is hidden, and says no word."""
    user = sql.Identifier(connection.info.user).as_string(connection)
    yield _all(
        connection,
        "tables and sequences that may be read",
        _CLOSED,
        f"GRANT pg_read_all_data TO {user}",
    )
    yield _all(connection, "rows that no policy hides", _HIDDEN, f"ALTER ROLE {user} BYPASSRLS")
    yield _all(
        connection,
        "large objects that may be read",
        _OBJECTS,
        f"Let a superuser back up, or make their owner a role that {user} is in.",
    )

    yield _told(
        "subscriptions and user mappings that may be read",
        unseen_by(connection),
        "Let a superuser back up: to others the server does not show all of them.",
    )


def _all(connection: Connection, what: str, query: str, mend: str) -> Finding:
    return _told(what, _names(connection, query), mend)


def _told(what: str, refused: list[str], mend: str) -> Finding:
    evidence = f"refused: {named(refused)}" if refused else "all of them"
    return Finding(what, not refused, evidence, mend)


def _names(connection: Connection, query: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(query.encode())]


def _log(connection: Connection, address: Address) -> Iterator[Finding]:
    name = slot_name(address.database)
    try:
        refuse_standby(connection, address)
    except KryonixError as error:
        # A standby's own slots say nothing of what its primary keeps.
        anything = Found(connection, name).anything
        yield Finding("log: primary", not anything, error.message, error.hint)
        return
    needs = [*log_needs(connection, address.database), identities(connection)]
    if not Found(connection, name).anything:
        yield _not_kept(needs)
        return
    yield from needs
    yield from room(connection)
    yield from not_in_the_log(connection)
    yield _prepared(connection, address)
    yield from _slot(connection, name)


def _not_kept(needs: list[Finding]) -> Finding:
    """That is no failure: backups alone are enough for many."""
    lacking = [f"{need.what.removeprefix('log: ')} ({need.evidence})" for need in needs
               if not need.passed]  # fmt: skip
    lacks = f", but it lacks: {'; '.join(lacking)}" if lacking else ""
    return Finding(
        "log",
        True,
        "not prepared: only the times of backups can be restored, and not those between;"
        f" '{_PREPARE}' begins a log{lacks}",
    )


def _prepared(connection: Connection, address: Address) -> Finding:
    try:
        steps = steps_of(connection, address.database, consent=False)
    except KryonixError as error:
        return Finding("log: prepared", False, error.message, error.hint)
    if not steps:
        said = "publication, event triggers and slot are there"
        return Finding("log: prepared", True, said)
    said = f"{len(steps)} steps are missing, the first: {' '.join(steps[0].sql.split())[:60]}"
    return Finding("log: prepared", False, said, f"{_PREPARE}, or {_RELEASE} to keep none")


def _slot(connection: Connection, name: str) -> Iterator[Finding]:
    row = connection.execute(_SLOT, (name,)).fetchone()
    if row is None:
        return
    status, safe, kept, active = row
    followed = active or holder(connection) is not None
    yield Finding(
        "log: slot", status in {"reserved", "extended"},
        f"{name} is {status}, {'followed' if followed else 'not followed'},"
        f" and keeps {wal_kept(kept, safe)}",
        "Run: kryonix backup ID --kind log; it begins anew where the slot is lost, and then needs:"
        " kryonix backup ID --kind full",
    )  # fmt: skip


_RELEASE = "kryonix source release ID NAME"
_CLOSED = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'S') and c.relpersistence <> 't'
  and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'kryonix')
  and not (has_schema_privilege(n.oid, 'usage')
           and case when c.relkind = 'S' then has_sequence_privilege(c.oid, 'select')
                    else has_table_privilege(c.oid, 'select') end)
order by 1
"""
_HIDDEN = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relrowsecurity and not (select rolsuper or rolbypassrls from pg_roles where rolname = user)
  and (c.relforcerowsecurity or not pg_has_role(c.relowner, 'usage'))
order by 1
"""
_OBJECTS = """
select oid::text from pg_largeobject_metadata
where not (select rolsuper from pg_roles where rolname = user)
  and not pg_has_role(lomowner, 'usage')
order by oid
"""
_UNLOGGED = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'u' order by 1
"""
_SLOT = """
select coalesce(wal_status, 'lost'), safe_wal_size,
       pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8, active
from pg_replication_slots where slot_name = %s and database = current_database()
"""
