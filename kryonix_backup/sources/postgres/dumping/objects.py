"""Which large objects of a database have changed: the server keeps no list, but can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from kryonix_backup.sources.postgres.server.exported import lsn_of
from kryonix_backup.sources.postgres.server.session import Connection

_WRAPS = 1 << 32
# A transaction's number of 32 bits is compared with one at most half of them away.
_COMPARED = (1 << 31) - (1 << 24)
_AT_ONCE = 5000
_LOCK_MS = 10_000
_COUNTERS = ", ".join(
    f"pg_stat_get_tuples_{what}('pg_catalog.{table}'::regclass)"
    for table in ("pg_largeobject", "pg_largeobject_metadata")
    for what in ("inserted", "updated", "deleted")
)
_NOW = """
select pg_snapshot_xmin(pg_current_snapshot())::text::int8,
       case when pg_is_in_recovery() then null else pg_current_wal_insert_lsn()::text end,
       clock_timestamp(),
       current_setting('server_version_num')::int >= 150000
       and current_setting('track_counts')::bool,
       concat_ws(' ', pg_postmaster_start_time(), d.stats_reset, {}),
       has_table_privilege('pg_catalog.pg_largeobject', 'select'),
       exists (select from pg_largeobject_metadata),
       pg_stat_get_tuples_inserted('pg_catalog.pg_largeobject_metadata'::regclass) > 0
from pg_stat_database d where d.datname = current_database()
""".replace("{}", _COUNTERS)
# Of a transaction that may not have ended by the horizon. Numbers that were frozen long ago may
# look young, which is no harm.
_CHANGED = """
select loid::int8 from pg_largeobject where age(xmin) <= age(%(since)s::text::xid)
union
select oid::int8 from pg_largeobject_metadata where age(xmin) <= age(%(since)s::text::xid)
order by 1
"""
_ALL = "select oid::int8 from pg_largeobject_metadata order by 1"
_RUNS = """
select min(oid), count(*) from (
    select oid::int8 as oid, oid::int8 - row_number() over (order by oid) as run
    from pg_largeobject_metadata) each group by run order by 1
"""
_COMMENTS = """
select d.objoid::int8, d.description from pg_description d
join pg_largeobject_metadata m on m.oid = d.objoid
where d.classoid = 'pg_catalog.pg_largeobject'::regclass and d.objsubid = 0 order by 1
"""
_ABOUT = """
select m.oid::int8, pg_get_userbyid(m.lomowner), m.lomacl::text[],
       obj_description(m.oid, 'pg_largeobject')
from pg_largeobject_metadata m
"""


class Now(NamedTuple):
    """
    A server just before a look at its large objects.

    Whatever is committed after the place ``at`` in the WAL has been done by a transaction numbered
    ``horizon`` or later. While ``seen`` is the same nothing has changed that the server has
    ``counted``, which it does a little late. ``at`` is None on a standby. Whether there are
    objects is ``any``, and ``ever`` whether one was made since the server counts.
    """

    horizon: int
    at: int | None
    time: datetime
    counted: bool
    seen: str
    may_look: bool
    any: bool
    ever: bool


def now_of(connection: Connection) -> Now:
    """The server of a connection, by now; not in a transaction."""
    row = connection.execute(_NOW.encode()).fetchone()
    assert row is not None
    horizon, at, *rest = row
    return Now(horizon, None if at is None else lsn_of(at), *rest)


def mark_of(at: int, time: datetime, horizon: int, total: int) -> dict[str, Any]:
    """Of when a backup's large objects are, and how many there were, for its meta."""
    return {"at": at, "time": time.isoformat(), "horizon": horizon, "total": total}


@contextmanager
def one_moment(connection: Connection) -> Iterator[datetime]:
    """
    Everything is looked at as of one moment; a time before which it was all committed.

    It does not wait long for who has locked the objects' tables: others wait for us.
    """
    connection.execute("begin isolation level repeatable read read only")
    try:
        connection.execute(f"set local lock_timeout = {_LOCK_MS}".encode())
        row = connection.execute("select clock_timestamp()").fetchone()
        assert row is not None
        yield row[0]
    finally:
        if not connection.closed:
            connection.execute("rollback")


def changed_objects(connection: Connection, since: int | None, now: int) -> list[int]:
    """
    The oids of large objects that may have changed since that horizon; all of them without one.

    A comment alone is no change.
    """
    if since is None or now - since > _COMPARED:
        rows = connection.execute(_ALL).fetchall()
    else:
        rows = connection.execute(_CHANGED, {"since": str(since % _WRAPS)}).fetchall()
    return [row[0] for row in rows]


def large_objects_of(connection: Connection) -> list[tuple[int, dict[str, Any]]]:
    """The oid of every large object, and who owns it, who may use it, what is said of it."""
    return _about(connection.execute(f"{_ABOUT} order by m.oid".encode()).fetchall())


def about_objects(
    connection: Connection, oids: list[int]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The same of those that there are of these, some at a time."""
    query = f"{_ABOUT} where m.oid = any(%s::oid[]) order by m.oid".encode()
    for first in range(0, len(oids), _AT_ONCE):
        chosen = oids[first : first + _AT_ONCE]
        yield from _about(connection.execute(query, (chosen,)).fetchall())


def _about(rows: Iterable[tuple[Any, ...]]) -> list[tuple[int, dict[str, Any]]]:
    return [
        (oid, {"owner": owner, "acl": acl, "comment": comment}) for oid, owner, acl, comment in rows
    ]


def runs_of_objects(connection: Connection) -> list[tuple[int, int]]:
    """The oids that there are: the first of each run, and how many follow each other."""
    return [(first, count) for first, count in connection.execute(_RUNS).fetchall()]


def comments_on_objects(connection: Connection) -> list[tuple[int, str]]:
    """What is said of objects, in order."""
    return [(oid, text) for oid, text in connection.execute(_COMMENTS).fetchall()]


def horizon_of_slot(connection: Connection, slot: str) -> int | None:
    """A horizon for everything that comes after the place where a slot is; None without one."""
    row = connection.execute(
        "select catalog_xmin::text::int8, pg_snapshot_xmax(pg_current_snapshot())::text::int8"
        " from pg_replication_slots where slot_name = %s",
        (slot,),
    ).fetchone()
    if row is None or row[0] is None:
        return None
    oldest, now = row
    return int(now - (now - oldest) % _WRAPS)
