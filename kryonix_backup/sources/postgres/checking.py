"""What of a server, a database and a user's rights would stop a backup."""

from __future__ import annotations

from collections.abc import Iterator

from kryonix_backup.errors import ConfigError, KryonixError
from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.programs import programs_for
from kryonix_backup.sources.postgres.session import Connection, connected
from kryonix_backup.sources.source import Finding

OLDEST, NEWEST = 14, 18
_NAMED = 5

_CLOSED = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'S') and c.relpersistence <> 't'
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
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


def check(address: Address) -> list[Finding]:
    """What was looked at; a server that cannot be reached gives one finding and no error."""
    try:
        with connected(address) as connection:
            return list(_findings(connection, address))
    except KryonixError as error:
        return [Finding(f"the database {address.shown}", False, error.message, error.hint)]


def _findings(connection: Connection, address: Address) -> Iterator[Finding]:
    version = connection.info.server_version // 10_000
    yield Finding(
        f"the database {address.shown}",
        OLDEST <= version <= NEWEST,
        f"it answers; its server is PostgreSQL {version}",
        f"This version of kryonix-backup knows PostgreSQL {OLDEST} to {NEWEST}.",
    )
    try:
        yield Finding("PostgreSQL's programs", True, f"they are in {programs_for(version)}")
    except ConfigError as error:
        yield Finding("PostgreSQL's programs", False, error.message, error.hint)
    user = address.user
    yield _all(
        connection,
        "tables and sequences that may be read",
        _CLOSED,
        f'GRANT pg_read_all_data TO "{user}"',
    )
    yield _all(connection, "rows that no policy hides", _HIDDEN, f'ALTER ROLE "{user}" BYPASSRLS')
    yield _all(
        connection,
        "large objects that may be read",
        _OBJECTS,
        f'Let a superuser back up, or make their owner a role that "{user}" is in.',
    )
    unlogged = _names(connection, _UNLOGGED)
    if unlogged:
        yield Finding(
            "unlogged tables",
            True,
            f"only their schema is saved, as after a crash of the server: {_shown(unlogged)}",
        )


def _all(connection: Connection, what: str, query: str, mend: str) -> Finding:
    refused = _names(connection, query)
    evidence = f"refused: {_shown(refused)}" if refused else "all of them"
    return Finding(what, not refused, evidence, mend)


def _names(connection: Connection, query: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(query.encode())]


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
