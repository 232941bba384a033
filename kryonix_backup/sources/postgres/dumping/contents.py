"""What is in a database, read in one snapshot: tables, sequences, roles, itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg import sql

from kryonix_backup.sources.postgres.server.address import SCHEMA
from kryonix_backup.sources.postgres.server.session import Connection
from kryonix_backup.sources.postgres.server.timescale import timescale_of

PAGE_BYTES = 8192


class Table(NamedTuple):
    """
    A table with rows of its own; ``pages`` of its heap decide how its rows are shared out.

    One of an ``extension`` holds what that knows of the others; ``where`` chooses the rows that it
    does not bring itself.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[str, ...]
    pages: int
    extension: bool
    where: str

    @property
    def identifier(self) -> sql.Identifier:
        """The table's name as SQL says it."""
        return sql.Identifier(self.schema, self.name)


# Leaves of partitioned tables hold the rows; what an extension made comes back with it, but for
# the tables that it names as its configuration. Generated columns are computed again.
_TABLES = """
select c.oid::int8, n.nspname, c.relname, (pg_relation_size(c.oid) / 8192)::int8,
       coalesce((select array_agg(a.attname order by a.attnum) from pg_attribute a
                 where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                   and a.attgenerated = ''), '{}')::text[],
       d.objid is not null, coalesce(e.extcondition[array_position(e.extconfig, c.oid)], '')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
left join pg_extension e on e.oid = d.refobjid
where c.relkind = 'r' and c.relpersistence = 'p'
  and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', %s)
  and (d.objid is null or c.oid = any(e.extconfig))
"""

_SEQUENCES = """
select schemaname, sequencename, last_value, start_value from pg_sequences
where schemaname <> %s order by 1, 2
"""
_AT_ONCE = 200

_UNSEEN = """
select what from (
    select 'subscription ' || quote_ident(subname) from pg_subscription
    where subdbid = (select oid from pg_database where datname = current_database())
    union all
    select format('user mapping of %I for %I', usename, srvname) from pg_user_mappings
) unseen(what)
where not (select rolsuper from pg_roles where rolname = user) order by 1
"""

# Roles that own something in this database, may do something in it, or own the database itself.
_ROLES = """
with recursive wanted(oid) as (
    select refobjid from pg_shdepend
    where refclassid = 'pg_authid'::regclass
      and (dbid = (select oid from pg_database where datname = current_database())
           or (dbid = 0 and classid = 'pg_database'::regclass
               and objid = (select oid from pg_database where datname = current_database())))
    union select datdba from pg_database where datname = current_database()
    union select setrole from pg_db_role_setting s
        join pg_database b on b.oid = s.setdatabase
        where b.datname = current_database() and setrole <> 0
    union select m.roleid from pg_auth_members m join wanted w on w.oid = m.member
)
select r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
       r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil::text,
       array(select pg_get_userbyid(m.roleid) from pg_auth_members m
             join wanted w on w.oid = m.roleid where m.member = r.oid order by 1)::text[]
from pg_roles r join wanted on wanted.oid = r.oid
where r.rolname !~ '^pg_' and r.oid <> 10 order by 1
"""
_ROLE_FIELDS = (
    "name", "superuser", "inherit", "createrole", "createdb", "login", "replication",
    "bypassrls", "connection_limit", "valid_until", "member_of",
)  # fmt: skip

_DATABASE = """
select pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, d.datlocprovider::text,
       to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale',
       pg_get_userbyid(d.datdba), d.datacl::text[], shobj_description(d.oid, 'pg_database'),
       d.datconnlimit, pg_database_size(d.oid)::int8
from pg_database d where d.datname = current_database()
"""
_SETTINGS = """
select case when s.setrole = 0 then null else pg_get_userbyid(s.setrole) end, s.setconfig
from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
where d.datname = current_database() order by 1 nulls first
"""
_VIEWS = """
select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'm' and c.relispopulated order by c.oid
"""


# The catalog as the snapshot sees it beside what is there now.
_CHANGED = """
select format('%%I.%%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid = any(%s::oid[])
  and (c.relfilenode is distinct from pg_relation_filenode(c.oid)
       or c.oid is distinct from to_regclass(format('%%I.%%I', n.nspname, c.relname))::oid)
order by 1
"""


def tables_of(connection: Connection) -> list[Table]:
    """Every table whose rows are to be saved."""
    rows = connection.execute(_TABLES, (SCHEMA,)).fetchall()
    return [
        Table(
            oid, schema, name, tuple(columns), pages or 0, extension, where
        )  # dropped meanwhile: reading it says so
        for oid, schema, name, pages, columns, extension, where in rows
    ]


def changed_since(connection: Connection, tables: list[Table]) -> list[str]:
    """
    Which of these tables were emptied, rewritten, renamed or dropped since the snapshot.

    Rows are read by a snapshot, but what a name stands for is not: such a table shows no rows, or
    others, without an error.
    """
    rows = connection.execute(_CHANGED, ([table.oid for table in tables],))
    return [row[0] for row in rows]


def sequences_of(connection: Connection) -> list[list[Any]]:
    """
    [schema, name, last value] of every sequence; null where it was never used.

    Where the next value was set, and not given out yet, it is [schema, name, next value, false].
    """
    found = connection.execute(_SEQUENCES, (SCHEMA,)).fetchall()
    sequences = [[schema, name, last] for schema, name, last, _ in found]
    unused = [(at, *row) for at, row in enumerate(found) if row[2] is None]
    for first in range(0, len(unused), _AT_ONCE):
        asked = sql.SQL(" union all ").join(
            sql.SQL(
                "select {}, last_value from {} where not is_called and last_value <> {}"
            ).format(sql.Literal(at), sql.Identifier(schema, name), sql.Literal(start))
            for at, schema, name, _, start in unused[first : first + _AT_ONCE]
        )
        for at, value in connection.execute(asked).fetchall():
            sequences[at] = [*sequences[at][:2], value, False]
    return sequences


def unseen_by(connection: Connection) -> list[str]:
    """What `pg_dump` leaves out, or a part of it, without a word, as this user is no superuser."""
    return [str(row[0]) for row in connection.execute(_UNSEEN)]


def roles_of(connection: Connection) -> list[dict[str, Any]]:
    """
    The roles that this database needs, with the password's hash where this user may see it.

    The bootstrap superuser is not among them: every server has its own.
    """
    rows = connection.execute(_ROLES).fetchall()
    roles = [dict(zip(_ROLE_FIELDS, row, strict=True)) for row in rows]
    allowed = connection.execute(
        "select has_table_privilege('pg_catalog.pg_authid', 'select')"
    ).fetchone()
    if allowed is not None and allowed[0]:
        hashes: dict[str, str | None] = dict(
            connection.execute("select rolname, rolpassword from pg_authid").fetchall()
        )
        for role in roles:
            role["password"] = hashes.get(role["name"])
    return roles


def database_of(connection: Connection) -> dict[str, Any]:
    """The database itself: encoding, locale, owner, rights, settings, views to fill again."""
    row = connection.execute(_DATABASE).fetchone()
    assert row is not None
    (encoding, collate, ctype, provider, locale, icu, owner, acl, comment, limit, size) = row
    return {
        "encoding": encoding,
        "collate": collate,
        "ctype": ctype,
        "provider": provider,
        "locale": locale or icu,
        "owner": owner,
        "acl": acl,
        "comment": comment,
        "connection_limit": limit,
        "size": size,
        "timescaledb": timescale_of(connection),
        "settings": [list(row) for row in connection.execute(_SETTINGS)],
        "materialized": [list(row) for row in connection.execute(_VIEWS)],
    }
