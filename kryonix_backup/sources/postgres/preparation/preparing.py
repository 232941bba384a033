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
from kryonix_backup.sources.postgres.preparation.needs import (
    Found,
    identities,
    log_needs,
    without_identity,
)
from kryonix_backup.sources.postgres.preparation.preparing_sql import (
    COMMENT,
    TOLD,
    TRIGGERS,
    functions,
)
from kryonix_backup.sources.postgres.server.address import SCHEMA, Address, slot_name
from kryonix_backup.sources.postgres.server.exported import lsn_of
from kryonix_backup.sources.postgres.server.session import Connection, to_primary
from kryonix_backup.sources.postgres.server.turn import turn

_OPEN_SECONDS = 60.0  # for transactions that are open to end
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
    with to_primary(address) as connection:
        return steps_of(connection, address.database, consent=replica_identity_full)


def prepare(address: Address, *, replica_identity_full: bool) -> Prepared:
    """
    Make what is missing; may be run again.

    Raises SourceUnprepared where the server or a table cannot do what is needed, and
    SourceUnavailable where open transactions stand in the way.
    """
    with to_primary(address) as connection:
        return _carry_out(connection, address, consent=replica_identity_full)


def renew_slot(address: Address) -> Prepared:
    """
    A new slot in place of ours, which gives up what the old one kept; and whatever is missing.

    Raises AlreadyRunning where the log is followed, and what `prepare` raises.
    """
    name = slot_name(address.database)
    with to_primary(address) as connection, turn(connection, address):
        Found(connection, name).refuse_others()
        _require(connection, address, consent=False)  # before the old one is given up
        _drop_slot(connection, name)
        return _carry_out(connection, address, consent=False)


def release(address: Address) -> list[str]:
    """
    Remove every trace of `prepare`; what was removed.

    Raises AlreadyRunning where the log is followed, and SourceUnavailable where a table is in
    use: then nothing was removed.
    """
    with to_primary(address) as connection, turn(connection, address):
        connection.execute(_PATIENCE)
        statements = list(_undoing(connection, slot_name(address.database)))
        try:
            with connection.transaction():
                for statement, _ in statements:
                    connection.execute(statement)
        except pg.LockNotAvailable as error:
            raise _locked(address) from error
        return [what for _, what in statements]


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
    _require(connection, address, consent=consent)
    steps = steps_of(connection, address.database, consent=consent)
    if _WAIT in steps:
        at = steps.index(_WAIT)
        _run(connection, address, steps[: at + 1])
        _require(connection, address, consent=consent)  # tables may have come meanwhile
        steps = steps_of(connection, address.database, consent=consent)
        steps.remove(_WAIT)
    _run(connection, address, steps)
    return prepared(connection, address)


def _require(connection: Connection, address: Address, *, consent: bool) -> None:
    needs = list(log_needs(connection, address.database))
    if not consent:
        needs.append(identities(connection))
    for finding in needs:
        if not finding.passed:
            raise SourceUnprepared(
                f"{address.shown}: {finding.what}: {finding.evidence}", finding.mend
            )


def _steps(connection: Connection, database: str, *, consent: bool) -> Iterator[Step]:
    name = slot_name(database)
    has = Found(connection, name)
    has.refuse_others()
    yield from _ours(has)
    stale = [name] if has.publication and has.stale else []
    for publication in [*stale, *has.publications]:
        yield Step(
            f"drop publication {publication}",
            "it is not what it has to be, or changes were missed",
        )
    for function, same in has.functions:
        if not same:
            yield Step(function.create, "event triggers call it")
    yield from _triggers(has)
    anew = has.stale or not has.publication
    if anew:
        yield _WAIT
    if consent:  # before there is a publication, or rows could not be updated for a moment
        yield from _identities(connection)
    if anew:
        yield Step(f"create publication {name} for all tables", "it says what is in the log")
    yield from _slot(has, name, failover=connection.info.server_version >= 170000)


def _triggers(has: Found) -> Iterator[Step]:
    for trigger in TRIGGERS:
        if trigger.name not in has.triggers:
            yield Step(f"drop event trigger if exists {trigger.name}", "one that is off is no use")
            for statement in trigger.create:
                yield Step(statement, "changes of the schema are in no log otherwise")


def _slot(has: Found, name: str, *, failover: bool) -> Iterator[Step]:
    for other in has.slots:
        yield Step(_drop_slot_sql(other), "it keeps a log under another name, which nobody follows")
    if has.slot and not has.lost:
        return
    if has.lost:
        yield Step(_drop_slot_sql(name), "the server has given up what it kept")
    options = "false, false, true" if failover else "false, false"
    yield Step(
        f"select pg_catalog.pg_create_logical_replication_slot('{name}', 'pgoutput', {options})",
        "from now on the server keeps the log",
    )


def _ours(has: Found) -> Iterator[Step]:
    """The schema and, in it, what release has to put back."""
    if not has.schema:
        yield Step(f"create schema {SCHEMA}", "what is ours is kept apart")
        yield Step(f"comment on schema {SCHEMA} is '{COMMENT}'", "it can be told from a tenant's")
    why = "what a table's replica identity was before we changed it"
    if not has.memory:
        table = f'{SCHEMA}.identity (relation oid primary key, was "char" not null)'
        yield Step(f"create table {table}", why)
    if not has.told:
        yield Step(
            f"create table {TOLD} (id bigint generated always as identity primary key,"
            " content text not null)",
            "changes of the schema are written here, which only their writer may",
        )
    if not has.open:
        yield Step(
            f"grant usage on schema {SCHEMA} to public", "whoever changes a schema comes by here"
        )
        yield Step(
            f"grant select on {SCHEMA}.identity, {TOLD} to public",
            "whoever dumps the database reads them",
        )


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
    """All in one transaction, but what waits for the transactions of others."""
    connection.execute(_PATIENCE)
    patient = [step for step in steps if step == _WAIT or "replication_slot(" in step.sql]
    try:
        with connection.transaction():
            for step in steps:
                if step not in patient:
                    connection.execute(step.sql)
    except pg.LockNotAvailable as error:
        raise _locked(address) from error
    except pg.InsufficientPrivilege as error:
        raise SourceDenied(
            f"{address.shown}: {error.diag.message_primary}",
            "Run it with a superuser in the source's address, or let one run what 'kryonix source"
            " prepare ID NAME --dry-run' prints.",
        ) from error
    for step in patient:
        _wait_for(connection, address, step)


def _wait_for(connection: Connection, address: Address, step: Step) -> None:
    """It waits for every transaction that is open now, in any database, but not for ever."""
    seconds = _OPEN_SECONDS
    connection.execute(f"set statement_timeout = {round(seconds * 1000)}; set lock_timeout = 0")
    try:
        connection.execute(step.sql)
    except pg.QueryCanceled as error:
        raise SourceUnavailable(
            f"{address.shown}: transactions were open for more than {seconds:.0f} seconds",
            f"End the oldest and run it again: {_oldest(connection)}.",
        ) from error
    except (pg.ConfigurationLimitExceeded, pg.ObjectNotInPrerequisiteState) as error:
        raise SourceUnprepared(f"{address.shown}: {error.diag.message_primary}") from error
    finally:
        connection.execute("set statement_timeout = 0")


def _oldest(connection: Connection) -> str:
    row = connection.execute(_OLDEST).fetchone()
    return row[0] if row else "see pg_stat_activity and pg_prepared_xacts"


def _drop_slot(connection: Connection, name: str) -> None:
    row = connection.execute(
        "select from pg_replication_slots where slot_name = %s and database = current_database()",
        (name,),
    ).fetchone()
    if row is not None:
        connection.execute(_drop_slot_sql(name))


def _drop_slot_sql(name: str) -> str:
    return f"select pg_catalog.pg_drop_replication_slot('{name}')"


def _undoing(connection: Connection, name: str) -> Iterator[tuple[str, str]]:
    """
    Statements, and what each removes.

    Triggers first, so that the rest is not recorded; slots last, as they do not come back.
    """
    has = Found(connection, name)
    for trigger in connection.execute(_ANY_TRIGGER, ([each.name for each in TRIGGERS],)):
        yield f"drop event trigger {trigger[0]}", f"event trigger {trigger[0]}"
    for publication in [*([name] if has.publication else []), *has.publications]:
        yield f"drop publication {publication}", f"publication {publication}"
    if has.memory and has.schema:
        yield from _identities_back(connection)
        yield f"drop table {SCHEMA}.identity", f"table {SCHEMA}.identity"
    if has.told and has.schema:
        yield f"drop table {TOLD}", f"table {TOLD}"
    if has.schema:
        for function in reversed(functions(name)):
            yield f"drop function if exists {function.signature}", f"function {function.signature}"
        yield f"drop schema {SCHEMA}", f"schema {SCHEMA}"
    for slot in [*([name] if has.slot else []), *has.slots]:
        yield _drop_slot_sql(slot), f"slot {slot}"


def _identities_back(connection: Connection) -> Iterator[tuple[str, str]]:
    for schema, name, was in connection.execute(_CHANGED).fetchall():
        table = sql.Identifier(schema, name).as_string(connection)
        before = "nothing" if was == "n" else "default"
        yield f"alter table {table} replica identity {before}", f"replica identity of {table}"


def _locked(address: Address) -> SourceUnavailable:
    return SourceUnavailable(
        f"{address.shown}: a table was in use for more than {_LOCK_SECONDS} seconds",
        "Run it again when no long transaction is open; it goes on where it stopped.",
    )


# A table that was made before there were triggers, in a transaction that is still open, is seen by
# nobody; once there is a publication it could not be updated. So that is waited for.
_WAIT = Step(
    "do $$ declare now xid8 := pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()); begin"
    " while pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) < now"
    " loop perform pg_catalog.pg_sleep(0.05); end loop; end $$",
    "transactions that are open now may have made tables",
)

_ANY_TRIGGER = "select evtname from pg_event_trigger where evtname = any(%s)"
_CHANGED = """
select n.nspname, c.relname, i.was from kryonix.identity i
join pg_class c on c.oid = i.relation join pg_namespace n on n.oid = c.relnamespace
where c.relreplident = 'f' order by 1, 2
"""
_OLDEST = """
select format('%s in database %s, open for %s seconds', what, name,
              extract(epoch from clock_timestamp() - since)::int8)
from (select format('process %s', pid) as what, datname as name, xact_start as since
      from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
      union all select format('prepared transaction %L', gid), database, prepared
      from pg_prepared_xacts) open
where since is not null order by since limit 1
"""
