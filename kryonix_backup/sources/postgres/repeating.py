"""Changes of a schema, made again as they were typed."""

from __future__ import annotations

import re

import psycopg
from psycopg import sql

from kryonix_backup.errors import RestoreError
from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.message import Ddl
from kryonix_backup.sources.postgres.session import SETTINGS, Connection

_WITH_DATA = re.compile(r"\bwith\s+(no\s+)?data\s*;?\s*$", re.IGNORECASE)
_COLUMNS = """
select n.nspname, c.relname, a.attname from pg_attribute a
join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
where (n.nspname, c.relname) in (select * from unnest(%s::text[], %s::text[]))
  and a.attnum > 0 and not a.attisdropped
"""


def repeat(connection: Connection, address: Address, ddl: Ddl) -> None:
    """
    Make one change of the schema again; raises RestoreError where it is refused.

    Rows do not come with it: those of a table that was made out of a query are in the log, and
    views are filled when everything is there.
    """
    if ddl.tag == "REFRESH MATERIALIZED VIEW":
        return
    before = _columns(connection, ddl)
    try:
        connection.execute(sql.SQL("set role {}").format(sql.Identifier(ddl.role)))
        connection.execute(
            "select pg_catalog.set_config('search_path', %s, false)", (ddl.search_path,)
        )
        connection.execute(_statement(ddl).encode())
    except psycopg.Error as error:
        said = " ".join((error.diag.message_primary or str(error)).split())
        raise RestoreError(
            f"{address.shown}: a change of the schema cannot be repeated: {said}:"
            f" {' '.join(ddl.query.split())[:200]}",
            "Restore to a moment before it, or to one after the next full backup.",
        ) from error
    finally:
        connection.execute("reset role")
        connection.execute(
            "select pg_catalog.set_config('search_path', %s, false)", (SETTINGS["search_path"],)
        )
    _give_first_values(connection, ddl, before)


def _statement(ddl: Ddl) -> str:
    if ddl.tag != "CREATE TABLE AS":
        return ddl.query
    query = ddl.query.rstrip().rstrip(";")
    return query if _WITH_DATA.search(query) else f"{query}\nwith no data"


def _columns(connection: Connection, ddl: Ddl) -> set[tuple[str, str, str]]:
    if not ddl.missing:
        return set()
    schemas, tables = [row[0] for row in ddl.missing], [row[1] for row in ddl.missing]
    return {(str(a), str(b), str(c)) for a, b, c in connection.execute(_COLUMNS, (schemas, tables))}


def _give_first_values(connection: Connection, ddl: Ddl, before: set[tuple[str, str, str]]) -> None:
    """Rows that were there got the default of then: a now() would be another one today."""
    for schema, table, column, text in ddl.missing:
        if (schema, table, column) in before:
            continue
        name = sql.Identifier(column)
        connection.execute(
            sql.SQL("update only {} set {} = {} where {}::text is distinct from {}").format(
                sql.Identifier(schema, table), name, sql.Literal(text), name, sql.Literal(text)
            )
        )
