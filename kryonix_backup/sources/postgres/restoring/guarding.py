"""
A tenant's own code, run with its owner's rights and never with ours.

A superuser writes the rows of a restore, and repeats changes of the schema. What checks, generated
columns and indexes call would have his rights then; and SET ROLE keeps nothing from a session that
began with them, as code in it may set the role back. In a function with its owner's rights the
server refuses to change roles, so there it is where such statements run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from psycopg import sql

from kryonix_backup.errors import RestoreError
from kryonix_backup.model import Blob
from kryonix_backup.sources.postgres.server.address import SCHEMA
from kryonix_backup.sources.postgres.server.session import Connection, encoding_of

_MAKE = """
create or replace function pg_temp.kryonix_as(statement pg_catalog.text) returns pg_catalog.int8
language plpgsql security definer as $kryonix$
declare
  number pg_catalog.int8;
begin
  execute statement;
  get diagnostics number = row_count;
  return number;
end $kryonix$
"""
_OWN = sql.SQL("alter function pg_temp.kryonix_as(pg_catalog.text) owner to {}")
# What it may have left to be run by us: settings, a cursor that is filled at the commit, a trigger
# that waits for it. A trigger with something to do cannot be dropped or changed, so it is seen.
_AFTER = "reset all; close all; set client_encoding to {}"
_WAITING = """
select format('%I on %I.%I', t.tgname, n.nspname, c.relname)
from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
where not t.tgisinternal and t.tgdeferrable and t.tgenabled in ('A', 'R') limit 1
"""

# Expressions that are worked out where a row is written, and the tables that they are of. Harmless
# is what the server brings and what always gives the same, and an extension's own in C.
_GUARDED = r"""
with risky as materialized (
    select p.oid from pg_proc p join pg_language l on l.oid = p.prolang
    where case when p.pronamespace = 'pg_catalog'::regnamespace
               then p.provolatile = 'v' or p.proname ~ '_to_xml'
               else p.provolatile <> 'i' or l.lanname not in ('c', 'internal') end
), expression(relation, domain, text) as (
    select conrelid, contypid, conbin::text from pg_constraint where contype = 'c'
    union all select d.adrelid, 0, d.adbin::text from pg_attrdef d
        join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
        where a.attgenerated <> ''
    union all select indrelid, 0, concat(indexprs::text, indpred::text) from pg_index
        where indexprs is not null or indpred is not null
    union all select t.relid, 0, p.partexprs::text from pg_partitioned_table p,
        pg_partition_tree(p.partrelid) t where p.partexprs is not null
), found as (
    select relation, domain from expression e where exists (
        select from regexp_matches(e.text, ':(?:op|hash|neg)?funcid (\d+)', 'g') m
        join risky on risky.oid = m[1]::oid)
), types as (  -- where a type's own code may run, whatever it is a part of
    select exists (select from found where domain <> 0)
           or exists (select from pg_range where rngsubdiff::oid >= 16384) as risky
)
select n.nspname, c.relname, pg_get_userbyid(c.relowner), c.oid::int8
from pg_class c join pg_namespace n on n.oid = c.relnamespace, types
where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname !~ '^(pg_|information_schema$)'
  and (c.oid in (select relation from found)
       or (types.risky and (
           exists (select from pg_attribute a join pg_type t on t.oid = a.atttypid
                   where a.attrelid = c.oid and a.attnum > 0
                     and t.typnamespace <> 'pg_catalog'::regnamespace)
           or exists (select from expression e where e.relation = c.oid
                      and e.text ~ 'COERCE(TODOMAIN|VIAIO)'))))
"""
# Of each column its type, the one below all domains, and whether code may hide in that.
_TYPES = """
with recursive below(number, name, type, modifier, base) as (
    select a.attnum, a.attname, a.atttypid, a.atttypmod, a.atttypid from pg_attribute a
    where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
    union all select b.number, b.name, b.type, b.modifier, t.typbasetype
    from below b join pg_type t on t.oid = b.base where t.typtype = 'd'
)
select b.name, format_type(b.type, b.modifier),
       format_type(b.base, case when b.base = b.type then b.modifier end),
       t.typnamespace <> 'pg_catalog'::regnamespace and t.typtype <> 'e'
       and (t.typtype <> 'b' or t.typelem <> 0)
from below b join pg_type t on t.oid = b.base where t.typtype <> 'd'
"""
_SHUT = """
select nspname from pg_namespace n
where nspname !~ '^(pg_|information_schema$)' and not has_schema_privilege('public', oid, 'usage')
"""
_USAGE = sql.SQL("{} usage on schema {} {} public")
_OTHERS = """
select format('%%I.%%I', n.nspname, c.relname)
from unnest(%s::text[], %s::text[]) wanted (schema, name)
join pg_namespace n on n.nspname = wanted.schema
join pg_class c on c.relnamespace = n.oid and c.relname = wanted.name where c.relkind <> 'r'
"""
_RESTING = """
select format('alter table only %I.%I disable %s %I', n.nspname, c.relname, what, name),
       format('alter table only %I.%I enable %s %s %I', n.nspname, c.relname,
              case enabled when 'A' then 'always' else 'replica' end, what, name)
from (select tgrelid as relation, 'trigger' as what, tgname as name, tgenabled as enabled
      from pg_trigger where not tgisinternal or tgconstraint = 0  -- a clone may be internal
      union all select ev_class, 'rule', rulename, ev_enabled from pg_rewrite) r
join pg_class c on c.oid = r.relation join pg_namespace n on n.oid = c.relnamespace
where r.enabled in ('A', 'R') and c.relkind in ('r', 'p')
"""


_LISTENING = """
select format('alter event trigger %I disable', evtname),
       format('alter event trigger %I enable %s', evtname,
              case evtenabled when 'A' then 'always' else 'replica' end)
from pg_event_trigger where evtenabled in ('A', 'R')
"""


class Guard(NamedTuple):
    """
    A table whose rows only its owner may write.

    ``types`` are its columns' as SQL says them, ``plain`` the same without domains, and ``hidden``
    the columns of which that is not enough, because there may be domains inside.
    """

    owner: str
    types: Mapping[str, str]
    plain: Mapping[str, str]
    hidden: frozenset[str]


def guards(
    connection: Connection, tables: Collection[tuple[str, str]] | None = None
) -> dict[tuple[str, str], Guard]:
    """The tables, of all or of these, where a row that is written runs code of the tenant's."""
    found = {}
    for schema, name, owner, oid in connection.execute(_GUARDED).fetchall():
        if tables is not None and (schema, name) not in tables:
            continue
        columns = connection.execute(_TYPES, (oid,)).fetchall()
        found[schema, name] = Guard(
            owner,
            {column: kind for column, kind, _, _ in columns},
            {column: plain for column, _, plain, _ in columns},
            frozenset(column for column, _, _, hides in columns if hides),
        )
    return found


def refuse_views(connection: Connection, tables: Collection[tuple[str, str]]) -> None:
    """Raise RestoreError where something else has the name of a table: a view may run anything."""
    names = [schema for schema, _ in tables], [name for _, name in tables]
    other = connection.execute(_OTHERS, names).fetchone()
    if other is not None:
        raise RestoreError(f"{other[0]} is no table, and the log changes one of that name")


def run_as(connection: Connection, role: str, text: str) -> int:
    """
    Run statements with the rights of a role and no others; how many rows the last one concerned.

    The session's settings are those of its start afterwards. Raises RestoreError where a trigger
    would run at the commit, which has our rights.
    """
    with connection.transaction():
        connection.execute(_MAKE)
        connection.execute(_OWN.format(sql.Identifier(role)))
        row = connection.execute(
            "select pg_temp.kryonix_as(%s::pg_catalog.text)", (text,)
        ).fetchone()
        assert row is not None
        connection.execute(_AFTER.format(encoding_of(connection)).encode())
        waiting = connection.execute(_WAITING).fetchone()
        if waiting is not None:
            raise RestoreError(
                f"the trigger {waiting[0]} is deferrable and fires always or in replicas: at the"
                " end of a transaction it would run with a superuser's rights",
                "Restore to a moment before it was made, or restore a backup by itself.",
            )
        connection.execute("drop function pg_temp.kryonix_as(pg_catalog.text)")
    return int(row[0])


def make_room(connection: Connection) -> list[str]:
    """
    Make the schema where rows wait for their owner; it is gone again with `clear_room`.

    Rights on schemas come with keys and indexes, after the rows: where one is needed before, all
    are open until `shut` is given what this returns.
    """
    connection.execute(f"create schema {SCHEMA}")
    connection.execute(f"grant usage on schema {SCHEMA} to public")
    if not guards(connection):
        return []
    schemas = [str(row[0]) for row in connection.execute(_SHUT)]
    for schema in schemas:
        connection.execute(_USAGE.format(sql.SQL("grant"), sql.Identifier(schema), sql.SQL("to")))
    return schemas


def shut(connection: Connection, schemas: Iterable[str]) -> None:
    """Take the rights back that `make_room` gave for the time of the load."""
    for schema in schemas:
        connection.execute(
            _USAGE.format(sql.SQL("revoke"), sql.Identifier(schema), sql.SQL("from"))
        )


def clear_room(connection: Connection) -> None:
    """Drop what `make_room` made."""
    connection.execute(f"drop schema {SCHEMA} cascade")


def write_rows(
    connection: Connection,
    table: sql.Identifier,
    columns: Sequence[str],
    text: Iterable[Blob],
    guard: Guard,
) -> int:
    """Write rows, given as COPY's text, as the table's owner; how many there were."""
    place = sql.Identifier(SCHEMA, f"rows_{connection.info.backend_pid}")
    names = [sql.Identifier(f"c{number}") for number in range(len(columns))]
    with connection.transaction():
        connection.execute(
            sql.SQL("create unlogged table {} ({})").format(
                place, sql.SQL(", ").join(sql.SQL("{} text").format(name) for name in names)
            )
        )
        statement = sql.SQL("copy {} from stdin").format(place)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for piece in text:
                copy.write(piece)
        values = sql.SQL(", ").join(
            sql.SQL("{}::{}").format(name, sql.SQL(guard.types[column]))  # as the server wrote it
            for name, column in zip(names, columns, strict=True)
        )
        written = insert_as_owner(connection, table, columns, values, place, guard)
        connection.execute(sql.SQL("drop table {}").format(place))
    return written


def insert_as_owner(
    connection: Connection,
    table: sql.Identifier,
    columns: Sequence[str],
    values: sql.Composed,
    place: sql.Identifier,
    guard: Guard,
) -> int:
    """Insert values out of a table of ours in the schema of `make_room`."""
    listed = sql.SQL(", ").join(map(sql.Identifier, columns))
    connection.execute(sql.SQL("grant select on {} to public").format(place))
    statement = sql.SQL("insert into {} {} select {} from {}").format(
        table,
        sql.SQL("({}) overriding system value").format(listed) if columns else sql.SQL(""),
        values,
        place,
    )
    return run_as(connection, guard.owner, statement.as_string(connection))


class Hush:
    """
    Triggers and rules that fire always, or in replicas, and rest while rows are replayed.

    What they did is in the log: with them it would be done twice. Event triggers rest with them, to
    the very end: what they did is in it too, and no log holds a change of them.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._of_rows: list[str] = []
        self._of_events: list[str] = []

    def begin(self) -> None:
        """Let them rest, as far as they do not."""
        for query, undo in ((_LISTENING, self._of_events), (_RESTING, self._of_rows)):
            for disable, enable in self._connection.execute(query).fetchall():
                self._connection.execute(disable.encode())
                undo.append(enable)

    def end(self) -> None:
        """Wake those of rows: a change of the schema has to find them as they were."""
        self._wake(self._of_rows)

    def close(self) -> None:
        """Wake them all."""
        self._wake(self._of_rows)
        self._wake(self._of_events)

    def _wake(self, undo: list[str]) -> None:
        while undo:
            self._connection.execute(undo.pop().encode())
