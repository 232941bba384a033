"""What a log needs of a server and its tables, looked at one by one; and what of ours is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from psycopg import sql

from kryonix_backup.errors import KryonixError, SourceUnprepared
from kryonix_backup.sources.postgres.preparation.preparing_sql import (
    COMMENT,
    TRIGGERS,
    WITHOUT_IDENTITY,
    functions,
)
from kryonix_backup.sources.postgres.server.address import SCHEMA, slot_name
from kryonix_backup.sources.postgres.server.session import Connection
from kryonix_backup.sources.postgres.server.timescale import timescale_log
from kryonix_backup.sources.source import Finding

_NAMED = 5  # of many tables


def gathered(server: str, looked_at: Iterable[Finding]) -> list[Finding]:
    """
    All that was looked at, with what mends each that failed.

    A server that cannot be reached, or refuses, is one failed finding.
    """
    found: list[Finding] = []
    try:
        for finding in looked_at:
            found.append(finding._replace(mend="") if finding.passed else finding)
    except KryonixError as error:
        found.append(Finding(server, False, error.message, error.hint))
    return found


def log_needs(connection: Connection, database: str) -> Iterator[Finding]:
    """What only an operator can put right; `prepare` refuses while one of them fails."""
    yield from timescale_log(connection)
    row = connection.execute(_SERVER, (slot_name(database),)).fetchone()
    assert row is not None
    level, slots, used, has_slot, replicates, user, encoding = row
    yield Finding(
        "log: wal_level", level == "logical", level,
        "alter system set wal_level = 'logical'; and restart the server",
    )  # fmt: skip
    yield Finding(
        "log: encoding", encoding != "SQL_ASCII", f"{encoding}, of which a text is not known to be"
        " any" if encoding == "SQL_ASCII" else encoding,
        "Move to a database of encoding UTF8; backups as such are complete, byte for byte.",
    )  # fmt: skip
    yield Finding(
        "log: replication slots", has_slot or used < slots, f"{used} of {slots} are used",
        f"alter system set max_replication_slots = {max(slots, used) + 10}; and restart the"
        " server",
    )  # fmt: skip
    yield Finding(
        "log: right to replicate", replicates,
        f"user {user} may {'' if replicates else 'not '}follow a log",
        f"alter role {sql.Identifier(user).as_string(connection)} replication",
    )  # fmt: skip


def identities(connection: Connection) -> Finding:
    """Whether every table could still be updated if there was a publication of all."""
    lacking = [
        sql.Identifier(schema, name).as_string(connection)
        for schema, name, _ in without_identity(connection)
    ]
    mend = "; ".join(f"alter table {table} replica identity full" for table in lacking[:_NAMED])
    return Finding(
        "log: replica identities", not lacking,
        f"{len(lacking)} tables have none: {named(lacking)}" if lacking else "every table has one",
        f"Give them a primary key, or run: {mend}; or for all of them: kryonix source prepare"
        " ID NAME --replica-identity-full" if lacking else "",
    )  # fmt: skip


def without_identity(connection: Connection) -> list[tuple[str, str, str]]:
    """Schema, name and identity of the tables that a publication would make read-only."""
    rows = connection.execute(f"{WITHOUT_IDENTITY} order by 2, 3").fetchall()
    return [(schema, name, identity) for _, schema, name, identity in rows]


def room(connection: Connection) -> Iterator[Finding]:
    """Whether the server has place for who follows a log, and an end for what it keeps."""
    row = connection.execute(_ROOM).fetchone()
    assert row is not None
    senders, sending, keeps, text = row
    yield Finding(
        "log: WAL senders", sending + 1 < senders,
        f"{sending} of {senders} are used, two are needed",
        f"alter system set max_wal_senders = {senders + 10}; and restart the server",
    )  # fmt: skip
    yield Finding(
        "log: max_slot_wal_keep_size", keeps >= 0,
        text if keeps >= 0 else "is unbounded: a log that nobody follows would fill the disk",
        "alter system set max_slot_wal_keep_size = '20GB'; select pg_reload_conf();",
    )  # fmt: skip


def not_in_the_log(connection: Connection) -> Iterator[Finding]:
    """What changes without a word in the log, and has to be looked at."""
    row = connection.execute(_OBJECTS).fetchone()
    assert row is not None
    user, may_look = row
    if connection.execute("select 1 from pg_largeobject_metadata limit 1").fetchone():
        yield Finding(
            "log: large objects", may_look,
            "they are in no log, and are sampled with it where they have changed" if may_look else
            f"user {user} may not see which have changed: they can be restored as of full backups"
            " alone, and no backup is an incremental one",
            f"grant pg_read_all_data to {sql.Identifier(user).as_string(connection)}",
        )  # fmt: skip


def wal_kept(kept: int | None, safe: int | None) -> str:
    """
    What a slot keeps of the WAL; None where it is lost.

    ``safe`` is how much may be added before it is, which the server looks at in its checkpoints.
    """
    if kept is None:
        return "nothing any more"
    if safe is None:
        return f"{kept} bytes of WAL"
    left = f"{safe} bytes until it is lost" if safe > 0 else "and is lost at the next checkpoint"
    return f"{kept} bytes of WAL, {left}"


def named(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


class Found:
    """
    What of ours a database has.

    ``publications`` and ``slots`` are of another name: that of the database before it was renamed
    or copied.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        row = connection.execute(_FOUND, {"schema": SCHEMA, "name": name}).fetchone()
        assert row is not None
        self._comment, self.memory, self.told, self.open, *rest = row
        suitable, status, self._of, self.publications, self.slots = rest
        self._name = name
        self.schema = self._comment == COMMENT
        self.publication, self.suitable = suitable is not None, bool(suitable)
        self.slot, self.lost = status is not None, status == "lost"
        there = {row[0]: tuple(row[1:]) for row in connection.execute(_KINDS, (SCHEMA,))}
        self.functions = [
            (function, there.get(function.name) == function.kind) for function in functions(name)
        ]
        self.triggers = {row[0] for row in connection.execute(_TRIGGERS, (SCHEMA,))}

    @property
    def stale(self) -> bool:
        """Whether the publication has to be another, as changes of the schema may be missing."""
        whole = all(same for _, same in self.functions) and len(self.triggers) == len(TRIGGERS)
        return not (whole and self.told and self.suitable)

    @property
    def anything(self) -> bool:
        """Whether there is any trace of us."""
        rest = (self.triggers, self.publications, self.slots)
        return self.schema or self.publication or self.slot or any(rest)

    def refuse_others(self) -> None:
        """Raise SourceUnprepared where a name of ours is another's."""
        _refuse(self._comment)
        if self._of is not None:
            raise SourceUnprepared(
                f"slot {self._name} is of another database, {self._of!r}",
                "That one has, or had, this one's name. Release it as a source of its own, or drop"
                f" the slot: select pg_drop_replication_slot('{self._name}').",
            )


def refuse_schema(connection: Connection) -> None:
    """Raise SourceUnprepared where a schema of the tenant's has our name: no backup holds ours."""
    row = connection.execute(_SCHEMA, (SCHEMA,)).fetchone()
    _refuse(None if row is None else row[0])


def _refuse(comment: str | None) -> None:
    if comment is not None and comment != COMMENT:
        raise SourceUnprepared(
            f"the database has a schema {SCHEMA} that is not ours",
            f"Rename it: alter schema {SCHEMA} rename to another_name.",
        )


_SCHEMA = """
select coalesce(obj_description(oid, 'pg_namespace'), '') from pg_namespace where nspname = %s
"""
_SERVER = """
select current_setting('wal_level'), current_setting('max_replication_slots')::int,
       (select count(*)::int from pg_replication_slots),
       exists (select from pg_replication_slots where slot_name = %s),
       r.rolsuper or r.rolreplication, r.rolname, current_setting('server_encoding')
from pg_roles r where r.rolname = current_user
"""
_OBJECTS = """
select current_user::text, has_table_privilege('pg_catalog.pg_largeobject', 'select')
"""
_ROOM = """
select current_setting('max_wal_senders')::int, (select count(*) from pg_stat_replication)::int,
       (select setting::int8 from pg_settings where name = 'max_slot_wal_keep_size'),
       current_setting('max_slot_wal_keep_size')
"""
_FOUND = """
select (select coalesce(obj_description(oid, 'pg_namespace'), '') from pg_namespace
        where nspname = %(schema)s),
       to_regclass('kryonix.identity') is not null, to_regclass('kryonix.told') is not null,
       (select count(*) = 2 and bool_and(has_schema_privilege('public', n.oid, 'usage')
                                         and has_table_privilege('public', c.oid, 'select'))
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %(schema)s and c.relname in ('identity', 'told')),
       (select puballtables and pubinsert and pubupdate and pubdelete and pubtruncate
               and not pubviaroot from pg_publication where pubname = %(name)s),
       (select coalesce(wal_status, 'lost') from pg_replication_slots
        where slot_name = %(name)s and database = current_database()),
       (select coalesce(database::text, '') from pg_replication_slots
        where slot_name = %(name)s and database is distinct from current_database()),
       array(select pubname::text from pg_publication
             where pubname ~ '^kryonix_' and puballtables and pubname <> %(name)s order by 1),
       array(select slot_name::text from pg_replication_slots
             where slot_name ~ '^kryonix_' and slot_name <> %(name)s and not temporary
               and database = current_database() order by 1)
"""
_KINDS = """
select p.proname, p.prosrc, p.prosecdef,
       coalesce('search_path=pg_catalog, pg_temp' = any(p.proconfig), false)
from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = %s
"""
_TRIGGERS = """
select e.evtname from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid
join pg_namespace n on n.oid = p.pronamespace
where n.nspname = %s and e.evtname ~ '^kryonix_' and e.evtenabled = 'A'
"""
