"""
What makes a server keep a database's log for us: a publication, event triggers and a slot.

`plan` says what is missing, `prepare` makes it, `release` removes every trace of it. A log is one
chain as long as its publication is the same: whatever else was missing in between makes a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from psycopg import errors as pg
from psycopg import sql

from kryonix_backup.errors import SourceDenied, SourceUnavailable, SourceUnprepared
from kryonix_backup.sources.postgres.address import SCHEMA, Address, slot_name
from kryonix_backup.sources.postgres.exported import lsn_of
from kryonix_backup.sources.postgres.message import PREFIX
from kryonix_backup.sources.postgres.needs import identities, log_needs, without_identity
from kryonix_backup.sources.postgres.preparing_sql import COMMENT, TRIGGERS, functions
from kryonix_backup.sources.postgres.session import Connection, connected

_SLOT_SECONDS = 60.0
_LOCK_SECONDS = 10  # who waits for a lock makes everybody wait who comes after
_PATIENCE = f"set lock_timeout = '{_LOCK_SECONDS}s'"


class Step(NamedTuple):
    """One statement that `prepare` would run."""

    sql: str
    why: str


class Prepared(NamedTuple):
    """
    A database whose log is kept.

    ``start`` is the LSN from which on the slot gives everything. ``system``, ``timeline`` and
    ``database`` say of which server this is the log, and ``publication`` is an oid.
    """

    publication: int
    slot: str
    start: int
    system: str
    database: int
    timeline: int


def plan(address: Address, *, replica_identity_full: bool) -> list[Step]:
    """What `prepare` would run now, in order; nothing where all is there."""
    with connected(address) as connection:
        return steps_of(connection, address.database, consent=replica_identity_full)


def prepare(address: Address, *, replica_identity_full: bool) -> Prepared:
    """
    Make what is missing; may be run again.

    Raises SourceUnprepared where the server or a table cannot do what is needed, and
    SourceUnavailable where open transactions stand in the way.
    """
    with connected(address) as connection:
        return _carry_out(connection, address, consent=replica_identity_full)


def renew_slot(address: Address) -> Prepared:
    """
    A new slot in place of ours, which gives up what the old one kept; and whatever is missing.

    Raises AlreadyRunning where the slot is being read, and what `prepare` raises.
    """
    with connected(address) as connection:
        _drop_slot(connection, slot_name(address.database))
        return _carry_out(connection, address, consent=False)


def release(address: Address) -> list[str]:
    """
    Remove every trace of `prepare`; what was removed.

    Raises AlreadyRunning where the slot is being read: then nothing was removed.
    """
    name = slot_name(address.database)
    with connected(address) as connection:
        removed = [f"slot {name}"] if _drop_slot(connection, name) else []
        connection.execute(_PATIENCE)
        statements = list(_undoing(connection, name))
        try:
            with connection.transaction():
                for statement, _ in statements:
                    connection.execute(statement)
        except pg.LockNotAvailable as error:
            raise _locked(address) from error
        return [*removed, *(what for _, what in statements)]


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
    row = connection.execute(_BEAT, {
        "before": lsn_of(row[0]), "prefix": PREFIX, "schema": SCHEMA, "publication": name,
        "triggers": enabled, "number": len(enabled),
    }).fetchone()  # fmt: skip
    if row is None or row[0] is None:
        raise SourceDenied(
            f"user {connection.info.user} may not read every sequence of database"
            f" {connection.info.dbname}",
            f"Run: {_READ_ALL.format(sql.Identifier(connection.info.user)).as_string(connection)}",
        )
    return lsn_of(row[0])


def prepared(connection: Connection, address: Address) -> Prepared:
    """What there is; raises SourceUnprepared where the slot or the publication is missing."""
    name = slot_name(address.database)
    row = connection.execute(
        "select p.oid::int8, s.confirmed_flush_lsn::text,"
        " (select system_identifier::text from pg_control_system()), s.datoid::int8,"
        " substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
        " from pg_publication p, pg_replication_slots s"
        " where p.pubname = %s and s.slot_name = %s and s.database = current_database()",
        (name, name),
    ).fetchone()
    if row is None or row[1] is None:
        raise SourceUnprepared(f"{address.shown}: its transaction log is not kept")
    publication, start, system, database, timeline = row
    return Prepared(publication, name, lsn_of(start), system, database, int(timeline, 16))


def steps_of(connection: Connection, database: str, *, consent: bool) -> list[Step]:
    """What is missing in the database of that name, which the connection is to."""
    return list(_steps(connection, database, consent=consent))


def _carry_out(connection: Connection, address: Address, *, consent: bool) -> Prepared:
    steps = steps_of(connection, address.database, consent=consent)
    needs = list(log_needs(connection, address.database))
    if not consent:
        needs.append(identities(connection))
    for finding in needs:
        if not finding.passed:
            raise SourceUnprepared(
                f"{address.shown}: {finding.what}: {finding.evidence}", finding.mend
            )
    _run(connection, address, steps)
    return prepared(connection, address)


def _steps(connection: Connection, database: str, *, consent: bool) -> Iterator[Step]:
    name = slot_name(database)
    has = _Found(connection, name)
    yield from _ours(has)
    if consent:  # before there is a publication, or rows could not be updated for a moment
        yield from _identities(connection)
    if has.publication and has.stale:
        yield Step(
            f"drop publication {name}", "it is not what it has to be, or changes were missed"
        )
    for function, same in has.functions:
        if not same:
            yield Step(function.create, "event triggers call it")
    if not has.publication or has.stale:
        yield Step(f"create publication {name} for all tables", "it says what is in the log")
    yield from _triggers(has)
    yield from _slot(has, name, failover=connection.info.server_version >= 170000)


def _triggers(has: _Found) -> Iterator[Step]:
    for trigger in TRIGGERS:
        if trigger.name not in has.triggers:
            yield Step(f"drop event trigger if exists {trigger.name}", "one that is off is no use")
            for statement in trigger.create:
                yield Step(statement, "changes of the schema are in no log otherwise")


def _slot(has: _Found, name: str, *, failover: bool) -> Iterator[Step]:
    if has.slot and not has.lost:
        return
    if has.lost:
        yield Step(_drop_slot_sql(name), "the server has given up what it kept")
    options = "false, false, true" if failover else "false, false"
    yield Step(
        f"select pg_catalog.pg_create_logical_replication_slot('{name}', 'pgoutput', {options})",
        "from now on the server keeps the log",
    )


def _ours(has: _Found) -> Iterator[Step]:
    """The schema and, in it, what release has to put back."""
    if not has.schema:
        yield Step(f"create schema {SCHEMA}", "what is ours is kept apart")
        yield Step(f"comment on schema {SCHEMA} is '{COMMENT}'", "it can be told from a tenant's")
    if has.schema and has.memory:
        return
    why = "what a table's replica identity was before we changed it"
    table = f'{SCHEMA}.identity (relation oid primary key, was "char" not null)'
    yield Step(f"create table {table}", why)
    yield Step(
        f"grant usage on schema {SCHEMA} to public", "whoever changes a schema comes by here"
    )
    yield Step(f"grant insert, select on {SCHEMA}.identity to public", why)


class _Found:
    """What of ours a database has."""

    def __init__(self, connection: Connection, name: str) -> None:
        row = connection.execute(_FOUND, {"schema": SCHEMA, "name": name}).fetchone()
        assert row is not None
        comment, self.memory, suitable, status = row
        self.schema = comment is not None
        if self.schema and comment != COMMENT:
            raise SourceUnprepared(
                f"the database has a schema {SCHEMA} that is not ours",
                f"Rename it: alter schema {SCHEMA} rename to another_name.",
            )
        self.publication, self.suitable = suitable is not None, bool(suitable)
        self.slot, self.lost = status is not None, status == "lost"
        there: dict[str, str] = dict(connection.execute(_BODIES, (SCHEMA,)).fetchall())
        self.functions = [
            (function, there.get(function.name) == function.body) for function in functions(name)
        ]
        self.triggers = {row[0] for row in connection.execute(_TRIGGERS, (SCHEMA,))}

    @property
    def stale(self) -> bool:
        """Whether the publication has to be another, as changes of the schema may be missing."""
        whole = all(same for _, same in self.functions) and len(self.triggers) == len(TRIGGERS)
        return not (whole and self.suitable)


def _identities(connection: Connection) -> Iterator[Step]:
    for schema, name, was in without_identity(connection):
        table = sql.Identifier(schema, name).as_string(connection)
        literal = sql.Literal(table).as_string(connection)
        yield Step(
            f"insert into {SCHEMA}.identity values ({literal}::pg_catalog.regclass, '{was}')"  # noqa: S608 - quoted by the driver
            " on conflict do nothing",
            "so that it can be put back",
        )
        yield Step(
            f"alter table {table} replica identity full",
            "its rows could not be updated once there is a publication",
        )


def _run(connection: Connection, address: Address, steps: list[Step]) -> None:
    connection.execute(_PATIENCE)
    slots = [step for step in steps if "replication_slot(" in step.sql]
    try:
        with connection.transaction():
            for step in steps:
                if step not in slots:
                    connection.execute(step.sql)
    except pg.LockNotAvailable as error:
        raise _locked(address) from error
    for step in slots:
        _make_slot(connection, address, step.sql)


def _make_slot(connection: Connection, address: Address, statement: str) -> None:
    """It waits for every transaction that is open now, in any database, but not for ever."""
    connection.execute(f"set statement_timeout = {round(_SLOT_SECONDS * 1000)}")
    try:
        connection.execute(statement)
    except pg.QueryCanceled as error:
        raise SourceUnavailable(
            f"{address.shown}: open transactions kept the slot from being made for"
            f" {_SLOT_SECONDS:.0f} seconds",
            f"End the oldest and run it again: {_oldest(connection)}.",
        ) from error
    except (pg.ConfigurationLimitExceeded, pg.ObjectNotInPrerequisiteState) as error:
        raise SourceUnprepared(f"{address.shown}: {error.diag.message_primary}") from error
    finally:
        connection.execute("set statement_timeout = 0")


def _oldest(connection: Connection) -> str:
    row = connection.execute(_OLDEST).fetchone()
    return row[0] if row else "see pg_stat_activity and pg_prepared_xacts"


def _drop_slot(connection: Connection, name: str) -> bool:
    row = connection.execute(
        "select 1 from pg_replication_slots where slot_name = %s", (name,)
    ).fetchone()
    if row is None:
        return False
    connection.execute(_drop_slot_sql(name))
    return True


def _drop_slot_sql(name: str) -> str:
    return f"select pg_catalog.pg_drop_replication_slot('{name}')"


def _undoing(connection: Connection, name: str) -> Iterator[tuple[str, str]]:
    """Statements, and what each removes; triggers first, so that the rest is not recorded."""
    for trigger in connection.execute(_ANY_TRIGGER, ([each.name for each in TRIGGERS],)):
        yield f"drop event trigger {trigger[0]}", f"event trigger {trigger[0]}"
    row = connection.execute(_FOUND, {"schema": SCHEMA, "name": name}).fetchone()
    assert row is not None
    comment, memory, publication, _ = row
    if publication is not None:
        yield f"drop publication {name}", f"publication {name}"
    if comment != COMMENT:
        return
    if memory:
        yield from _identities_back(connection)
        yield f"drop table {SCHEMA}.identity", f"table {SCHEMA}.identity"
    for function in reversed(functions(name)):
        yield f"drop function if exists {function.signature}", f"function {function.signature}"
    yield f"drop schema {SCHEMA}", f"schema {SCHEMA}"


def _identities_back(connection: Connection) -> Iterator[tuple[str, str]]:
    for schema, name, was in connection.execute(_CHANGED).fetchall():
        table = sql.Identifier(schema, name).as_string(connection)
        before = "nothing" if was == "n" else "default"
        yield f"alter table {table} replica identity {before}", f"replica identity of {table}"


def _locked(address: Address) -> SourceUnavailable:
    return SourceUnavailable(
        f"{address.shown}: a table was in use for more than {_LOCK_SECONDS} seconds",
        "Nothing was changed. Run it again when no long transaction is open.",
    )


_READ_ALL = sql.SQL("grant pg_read_all_data to {}")

_FOUND = """
select (select coalesce(obj_description(oid, 'pg_namespace'), '') from pg_namespace
        where nspname = %(schema)s),
       exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where n.nspname = %(schema)s and c.relname = 'identity'),
       (select puballtables and pubinsert and pubupdate and pubdelete and pubtruncate
               and not pubviaroot from pg_publication where pubname = %(name)s),
       (select coalesce(wal_status, 'lost') from pg_replication_slots
        where slot_name = %(name)s)
"""
_BODIES = """
select p.proname, p.prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = %s
"""
_TRIGGERS = """
select e.evtname from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid
join pg_namespace n on n.oid = p.pronamespace
where n.nspname = %s and e.evtname ~ '^kryonix_' and e.evtenabled = 'A'
"""
_ANY_TRIGGER = "select evtname from pg_event_trigger where evtname = any(%s)"
_CHANGED = """
select n.nspname, c.relname, i.was from kryonix.identity i
join pg_class c on c.oid = i.relation join pg_namespace n on n.oid = c.relnamespace
where c.relreplident = 'f' order by 1, 2
"""
_OLDEST = """
select format('process %s in database %s, open for %s seconds', pid, datname,
              extract(epoch from clock_timestamp() - xact_start)::int8)
from pg_stat_activity
where xact_start is not null and backend_xid is not null and pid <> pg_backend_pid()
order by xact_start limit 1
"""
_BEAT = """
select case when not exists (
    select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname <> %(schema)s and not pg_is_other_temp_schema(n.oid)
      and case when c.relkind = 'S' then not has_sequence_privilege(c.oid, 'select, usage') end)
then pg_logical_emit_message(true, %(prefix)s, json_build_object(
    'kind', 'beat', 'before', %(before)s::int8,
    'sequences', (select coalesce(json_agg(json_build_array(schemaname, sequencename, last_value)
                                           order by schemaname, sequencename), '[]')
                  from pg_sequences where schemaname <> %(schema)s),
    'publication', coalesce((select oid::int8 from pg_publication where pubname = %(publication)s
        and (select count(*) from pg_event_trigger
             where evtname = any(%(triggers)s) and evtenabled = 'A') = %(number)s), 0))::text)::text
end
"""
