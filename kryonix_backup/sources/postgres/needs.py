"""What a server and its tables need before a log can be kept, looked at one by one."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from kryonix_backup.sources.postgres.address import slot_name
from kryonix_backup.sources.postgres.preparing_sql import WITHOUT_IDENTITY
from kryonix_backup.sources.postgres.session import Connection
from kryonix_backup.sources.source import Finding

_NAMED = 5  # of many tables


def log_needs(connection: Connection, database: str) -> Iterator[Finding]:
    """What only an operator can put right; `prepare` refuses while one of them fails."""
    level, slots, used, has_slot = _facts(connection, database)
    yield Finding(
        "wal_level", level == "logical", level,
        "alter system set wal_level = 'logical'; and restart the server",
    )  # fmt: skip
    yield Finding(
        "replication slots", has_slot or used < slots, f"{used} of {slots} are used",
        f"alter system set max_replication_slots = {max(slots, used) + 10}; and restart the"
        " server",
    )  # fmt: skip


def identities(connection: Connection) -> Finding:
    """Whether every table could still be updated if there was a publication of all."""
    lacking = [
        sql.Identifier(schema, name).as_string(connection)
        for schema, name, _ in without_identity(connection)
    ]
    mend = "; ".join(f"alter table {table} replica identity full" for table in lacking[:_NAMED])
    return Finding(
        "replica identities", not lacking,
        f"{len(lacking)} tables have none: {named(lacking)}" if lacking else "every table has one",
        f"Give them a primary key, or run: {mend}; or for all of them: kryonix source prepare"
        " ID NAME --replica-identity-full" if lacking else "",
    )  # fmt: skip


def without_identity(connection: Connection) -> list[tuple[str, str, str]]:
    """Schema, name and identity of the tables that a publication would make read-only."""
    rows = connection.execute(f"{WITHOUT_IDENTITY} order by 2, 3").fetchall()
    return [(schema, name, identity) for _, schema, name, identity in rows]


def named(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _facts(connection: Connection, database: str) -> tuple[str, int, int, bool]:
    row = connection.execute(
        "select current_setting('wal_level'), current_setting('max_replication_slots')::int,"
        " count(*)::int, coalesce(bool_or(slot_name = %s), false) from pg_replication_slots",
        (slot_name(database),),
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2], row[3]
