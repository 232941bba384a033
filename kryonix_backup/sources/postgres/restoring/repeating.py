"""Changes of a schema, made again as they were typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg
from psycopg import pq, sql
from psycopg.errors import error_from_result

from kryonix_backup.errors import KryonixError, RestoreError, TargetFull, TransientError
from kryonix_backup.sources.postgres.decoding.message import Ddl
from kryonix_backup.sources.postgres.restoring.guarding import Hush, run_as
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection, told

_REFRESH = "REFRESH MATERIALIZED VIEW"
_AS_BEFORE = "set session authorization default; reset role; reset all; discard temp"
# These run in no function. By themselves they run nothing of a tenant's but what an index calls,
# which the server does with the rights of its owner; and that it is one of them is not taken from
# who wrote it down, but seen.
_START = r"(?:\s|--[^\r\n]*[\r\n]|/\*(?:[^*/]|\*(?!/)|/(?!\*))*\*/)*"
_NAME = r'(?:[\w$]+|"(?:[^"]|"")+")'
_NAMES = rf"{_NAME}(?:\.{_NAME})?"
_ALONE = re.compile(
    rf"{_START}(?:(?:create\s+(?:unique\s+)?|drop\s+)index\s+concurrently\b.*|alter\s+table\s+"
    rf"(?:if\s+exists\s+)?{_NAMES}\s+detach\s+partition\s+{_NAMES}\s+concurrently[\s;]*)",
    re.IGNORECASE | re.DOTALL,
)
_UNFILLED = " WITH NO DATA"
_NO_DATA = "\nwith no data"  # on a line of its own: the text may end in a comment
_SHOWN = 200  # characters of a statement in a message
_ENDS = "; \t\r\n\f\v"
_WITH_DATA = re.compile(r"\bwith\s+(?:no\s+)?data\b", re.IGNORECASE)
_EARLIER = "Restore to a moment before it, or to one after the next full backup."
_ROLE = "select 1 from pg_catalog.pg_roles where rolname = %s"
_FILLED = """
select relispopulated, oid::int8 from pg_catalog.pg_class where oid = pg_catalog.to_regclass(%s)
"""
# By their numbers, not their names: a table or a column may be given another name.
_WIDTHS = "select oid, relnatts from pg_catalog.pg_class where relkind in ('r', 'p')"
_PLACES = """
select n.nspname, c.relname, a.attname, c.oid, a.attnum, pg_catalog.pg_get_userbyid(c.relowner)
from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where (n.nspname, c.relname) in (select * from unnest(%s::text[], %s::text[]))
  and a.attnum > 0 and not a.attisdropped
"""


def repeat(connection: Connection, address: Address, ddl: Ddl, hush: Hush) -> int | None:
    """
    Make one change of the schema again; raises RestoreError where it is refused.

    Rows do not come with it: those of a table that was made out of a query are in the log. A view
    that is not filled yet stays so until everything is there: its oid is returned. The
    connection commits each statement, and has its own settings again afterwards. ``hush`` has
    begun.
    """
    with _explained(address, ddl):
        waiting = _waiting(connection, ddl)
        if waiting is not None:
            return waiting
        if not connection.execute(_ROLE, (ddl.role,)).fetchone():
            raise _unrepeatable(
                address, ddl, f"role {ddl.role} does not exist", "Make the role, and restore again."
            )
        before = _widths(connection, ddl)
        hush.end()
        with _as_then(connection, ddl):
            _run(connection, address, ddl)
        hush.begin()
        _give_first_values(connection, ddl, before)
    return None


@contextmanager
def _explained(address: Address, ddl: Ddl) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _refusal(error, address, ddl) from error
    except UnicodeEncodeError as error:
        raise _unrepeatable(address, ddl, "its text cannot be sent to a server") from error


def _refusal(error: psycopg.Error, address: Address, ddl: Ddl) -> KryonixError:
    ours = told(error, address)
    if isinstance(ours, TransientError | TargetFull):
        return ours  # it says nothing about the statement
    return _unrepeatable(address, ddl, error.diag.message_primary or str(error))


def _unrepeatable(address: Address, ddl: Ddl, reason: str, hint: str = _EARLIER) -> RestoreError:
    return RestoreError(
        f"{address.shown}: a change of the schema cannot be repeated: {_line(reason)}:"
        f" {_line(ddl.query)}",
        hint,
    )


def _line(text: str) -> str:
    """The beginning of a text from elsewhere, fit for a terminal."""
    start = " ".join(text.split())[:_SHOWN]
    return "".join(sign if sign.isprintable() else "?" for sign in start)


# ---------------------------------------------------------------------- the statement


@contextmanager
def _as_then(connection: Connection, ddl: Ddl) -> Iterator[None]:
    """With the path of then; nothing that the statement sets or leaves outlasts it."""
    try:
        settings = [("search_path", ddl.search_path), *ddl.settings]
        connection.execute(
            "select pg_catalog.set_config(name, value, false)"
            " from unnest(%s::text[], %s::text[]) as setting (name, value)",
            ([name for name, _ in settings], [value for _, value in settings]),
        )
        yield
    finally:
        if not connection.closed:
            connection.rollback()
            connection.execute(_AS_BEFORE)


def _run(connection: Connection, address: Address, ddl: Ddl) -> None:
    if "\0" in ddl.query:
        raise _unrepeatable(address, ddl, "its text holds a zero byte")
    if ddl.tag == "CREATE TABLE AS":
        _run_without_rows(connection, ddl)
    elif _ALONE.fullmatch(ddl.query):
        _run_alone(connection, ddl)
    else:
        run_as(connection, ddl.role, ddl.query)


def _run_alone(connection: Connection, ddl: Ddl) -> None:
    """One statement, outside a transaction; the server refuses a text that holds another one."""
    connection.execute(sql.SQL("set role {}").format(sql.Identifier(ddl.role)))
    result = connection.pgconn.exec_params(ddl.query.encode(), None)
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise error_from_result(result)


def _run_without_rows(connection: Connection, ddl: Ddl) -> None:
    """The first way of saying it that is none of the server's syntax errors."""
    first: pg.SyntaxError | None = None
    for text in _without_rows(ddl.query):
        try:
            run_as(connection, ddl.role, text)
        except pg.SyntaxError as error:
            first = first or error
        else:
            return
    assert first is not None
    raise first


def _without_rows(query: str) -> Iterator[str]:
    """
    Ways to say that no rows are to be made, which cannot be seen without parsing SQL.

    Each ends in our own clause, and so makes none or is an error: what was typed may have the
    clause, or the opposite one, or one in a comment or a string, and a comment after its end.
    """
    for text in (query, query.rpartition(";")[0]):
        plain = text.rstrip(_ENDS)
        yield plain + _NO_DATA
        for found in reversed(list(_WITH_DATA.finditer(plain))):
            yield (plain[: found.start()] + plain[found.end() :]).rstrip(_ENDS) + _NO_DATA


def _waiting(connection: Connection, ddl: Ddl) -> int | None:
    """The view that it fills, if that is filled when everything is there."""
    if ddl.tag != _REFRESH:
        return None
    view = ddl.query.removeprefix(_REFRESH).removesuffix(_UNFILLED)
    row = connection.execute(_FILLED, (view,)).fetchone()
    return int(row[1]) if row is not None and not row[0] else None


# ---------------------------------------------------------------------- rows that are there


def _widths(connection: Connection, ddl: Ddl) -> dict[int, int]:
    """How many columns each table has ever had; asked only where there is something to give."""
    return dict(connection.execute(_WIDTHS).fetchall()) if ddl.missing else {}


def _give_first_values(connection: Connection, ddl: Ddl, before: dict[int, int]) -> None:
    """Rows that were there got the default of then: a now() would be another one today."""
    if not ddl.missing:
        return
    values = {(schema, table, column): text for schema, table, column, text in ddl.missing}
    tables = [row[0] for row in ddl.missing], [row[1] for row in ddl.missing]
    places = connection.execute(_PLACES, tables).fetchall()
    for schema, table, column, oid, number, owner in places:
        text = values.get((schema, table, column))
        if text is None or number <= before.get(oid, 0):
            continue
        statement = sql.SQL(
            "update only {table} set {name} = {value}"
            " where row({name})::text is distinct from row({value}::text)::text"
        ).format(
            table=sql.Identifier(schema, table),
            name=sql.Identifier(column),
            value=sql.Literal(text),
        )
        run_as(connection, owner, statement.as_string(connection))
