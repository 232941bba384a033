"""A beat: a message of ours in a database's log, with the values of its sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import errors as pg
from psycopg import sql

from kryonix_backup.errors import SourceDenied
from kryonix_backup.sources.postgres.decoding.message import PREFIX
from kryonix_backup.sources.postgres.preparation.preparing_sql import TRIGGERS
from kryonix_backup.sources.postgres.server.address import SCHEMA, slot_name
from kryonix_backup.sources.postgres.server.exported import lsn_of
from kryonix_backup.sources.postgres.server.session import Connection

_TRIES = 10
_READ_ALL = sql.SQL("grant pg_read_all_data to {}")
_BEAT = """
select case when not exists (
    select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname <> %(schema)s and not pg_is_other_temp_schema(n.oid)
      and case when c.relkind = 'S' then not has_sequence_privilege(c.oid, 'select, usage') end)
then pg_logical_emit_message(true, %(prefix)s, convert_to(json_build_object(
    'kind', 'beat', 'before', %(before)s::int8,
    'sequences', (select coalesce(json_agg(json_build_array(schemaname, sequencename, last_value)
                                           order by schemaname, sequencename), '[]')
                  from pg_sequences where schemaname <> %(schema)s),
    'publication', coalesce((select oid::int8 from pg_publication where pubname = %(publication)s
        and (select count(*) from pg_event_trigger where evtname = any(%(triggers)s)
             and evtenabled = 'A') = %(number)s), 0))::text, 'UTF8'))::text
end
"""


def beat(connection: Connection) -> int:
    """
    Write the values of the sequences into the log; the LSN of the message.

    ``before`` in it is the end of the WAL just before the sequences were looked at: they hold
    whatever was committed by then. Without our triggers the publication is told as gone.
    Raises SourceDenied where a sequence cannot be read.
    """
    row = connection.execute("select pg_catalog.pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    name = slot_name(connection.info.dbname)
    enabled = [trigger.name for trigger in TRIGGERS]
    row = _told(connection, {
        "before": lsn_of(row[0]), "prefix": PREFIX, "schema": SCHEMA, "publication": name,
        "triggers": enabled, "number": len(enabled),
    })  # fmt: skip
    if row is None or row[0] is None:
        raise SourceDenied(
            f"user {connection.info.user} may not read every sequence of database"
            f" {connection.info.dbname}",
            f"Run: {_READ_ALL.format(sql.Identifier(connection.info.user)).as_string(connection)}",
        )
    return lsn_of(row[0])


def _told(connection: Connection, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
    for _ in range(_TRIES - 1):
        try:
            return connection.execute(_BEAT, values).fetchone()
        except pg.InternalError_:
            # A sequence was dropped while it was looked at, which the server tells so.
            continue
    return connection.execute(_BEAT, values).fetchone()
