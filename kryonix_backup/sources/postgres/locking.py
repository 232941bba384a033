"""
Tables held as a snapshot sees them, until a dump of it has ended.

Rows are read by a snapshot, but what a name stands for is not: a TRUNCATE or a rewrite after the
snapshot was taken would show an empty table, without an error.
"""

from __future__ import annotations

import psycopg
from psycopg import errors as pg
from psycopg import sql

from kryonix_backup.errors import SourceUnavailable
from kryonix_backup.sources.postgres.contents import Table
from kryonix_backup.sources.postgres.session import Connection

_TRIES = 60
# Below the server's deadlock_timeout, so that whoever gives way is us and not the tenant.
_WAIT = "set local lock_timeout = '800ms'"
_PAUSE = "select pg_sleep(0.2)"
# The catalog as the snapshot sees it beside what is there now.
_CHANGED = """
select format('%%I.%%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid = any(%s::oid[]) and c.relfilenode is distinct from pg_relation_filenode(c.oid)
"""


class SchemaChanged(SourceUnavailable):
    """A table was dropped, emptied or rewritten after the snapshot was taken: take another one."""


def hold(connection: Connection, tables: list[Table]) -> None:
    """
    Let nobody drop, empty or rewrite these tables before the connection's transaction ends.

    Raises SchemaChanged where somebody already has, and SourceUnavailable where one is locked for
    long; no lock is held then.
    """
    if not tables:
        return
    names = sql.SQL(", only ").join(table.identifier for table in tables)
    statement = sql.SQL("lock table only {} in access share mode").format(names)
    for _ in range(_TRIES):
        connection.execute("savepoint kryonix_locks")
        try:
            connection.execute(_WAIT)
            connection.execute(statement)
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            connection.execute("rollback to savepoint kryonix_locks")
            connection.execute(_PAUSE)
        except (pg.UndefinedTable, pg.InvalidSchemaName) as error:
            connection.execute("rollback to savepoint kryonix_locks")
            raise SchemaChanged(_said(error)) from error
        else:
            break
    else:
        raise SourceUnavailable(
            "a table is locked by a long transaction, so that it cannot be read",
            "End it (see pg_locks with mode AccessExclusiveLock), then run the backup again.",
        )
    changed = connection.execute(_CHANGED, ([table.oid for table in tables],)).fetchall()
    if changed:
        connection.execute("rollback to savepoint kryonix_locks")
        raise SchemaChanged(f"table {changed[0][0]} was emptied or rewritten meanwhile")


def _said(error: psycopg.Error) -> str:
    return f"a table was dropped or renamed meanwhile: {error.diag.message_primary}"
