"""Sequences of a restored database: as they stood, and never behind the columns they are for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import sql

from kryonix_backup.sources.postgres.server.session import Connection

# Sequences that only count upwards, with the column of whole numbers that each belongs to. Rows of
# foreign tables are on other servers.
_OWNED = """
select s.oid::regclass::text, d.refobjid::regclass::text, a.attname, q.seqmax
from pg_class s
join pg_sequence q on q.seqrelid = s.oid and q.seqincrement > 0 and not q.seqcycle
join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid
  and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
join pg_class c on c.oid = d.refobjid and c.relkind in ('r', 'p')
join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
join pg_type t on t.oid = a.atttypid
where coalesce(nullif(t.typbasetype, 0), t.oid)
      in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
  and not exists (
    with recursive below(oid) as (
      select d.refobjid
      union select i.inhrelid from pg_inherits i join below b on b.oid = i.inhparent)
    select from below b join pg_class f on f.oid = b.oid where f.relkind = 'f')
"""
_SET = """
select setval(q.seqrelid, least(greatest(%s, q.seqmin), q.seqmax), %s)
from pg_sequence q where q.seqrelid = to_regclass(%s)
"""


def set_sequences(connection: Connection, sequences: Iterable[Sequence[Any]]) -> None:
    """
    Give sequences their values.

    One that was made or dropped after the values were taken keeps what it has; so does one that was
    never used.
    """
    for schema, name, value, *called in sequences:
        if value is not None:
            identifier = sql.Identifier(schema, name).as_string(connection)
            connection.execute(_SET, (value, not called, identifier))


def lead_columns(connection: Connection) -> None:
    """Let no sequence stand behind the column it is for."""
    for sequence, table, column, most in connection.execute(_OWNED).fetchall():
        connection.execute(
            sql.SQL(
                "select setval({s}, top, true)"
                " from (select max({c}) as top from {t} where {c} <= {m}) c where top > ("
                "select case when is_called then last_value else last_value - 1 end"
                " from {q})"
            ).format(
                s=sql.Literal(sequence),
                c=sql.Identifier(column),
                m=sql.Literal(most),
                t=sql.SQL(table),
                q=sql.SQL(sequence),
            )
        )
