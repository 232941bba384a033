"""A database with a little of everything that PostgreSQL allows, and what tests look at it with."""

from __future__ import annotations

import hashlib

from psycopg import sql

from kryonix_backup.sources.postgres.server.session import SETTINGS, encoding_of
from kryonix_backup.testing.postgres import PostgresServer

ROLES = """
do $$ begin
  create role "Owner of crm" login password 'not-a-secret' connection limit 7;
  create role app_reader nologin;
  grant app_reader to "Owner of crm";
exception when duplicate_object then null; end $$
"""

SCHEMA = """
create extension if not exists pg_trgm;
create schema crm authorization "Owner of crm";
comment on schema crm is 'customers; everything';
set role "Owner of crm";
create type crm.mood as enum ('glad', 'it''s fine', 'sad');
create domain crm.email as text check (value like '%@%');
create table crm.customer (
    id bigint generated always as identity primary key,
    name text not null, mail crm.email, mood crm.mood default 'glad', tags text[], data jsonb,
    place point, price numeric(12, 3), born date, seen timestamptz default now(), secret bytea,
    shout text generated always as (upper(name)) stored,
    unique (mail)
);
create index on crm.customer using gin (tags);
create index named_like on crm.customer (name text_pattern_ops) where mood <> 'sad';
create table crm."Order %.item" (
    customer bigint references crm.customer on delete cascade, no int, "Note" text,
    primary key (customer, no), check (no > 0)
);
create table crm.event (at timestamptz, what text) partition by range (at);
create table crm.event_old partition of crm.event for values from (minvalue) to ('2026-01-01');
create table crm.event_new partition of crm.event for values from ('2026-01-01') to (maxvalue);
create index on crm.event (at);
create table crm.parent (a int); create table crm.child (b text) inherits (crm.parent);
create table crm.nothing ();
create unlogged table crm.scratch (a int);
create sequence crm.ticket start 1000 increment 5;
create sequence crm.never;
create view crm.glad as select * from crm.customer where mood = 'glad';
create materialized view crm.count as select count(*) as n from crm.customer;
create materialized view crm.count_again as select n + 1 as n from crm.count;
create materialized view crm.unfilled as select 1 as one with no data;
create function crm.touch() returns trigger language plpgsql as
    'begin new.seen := ''2001-01-01''; return new; end';
create trigger touching before update on crm.customer for each row execute function crm.touch();
alter table crm.customer enable row level security;
create policy own on crm.customer using (name = current_user);
grant select on crm.customer to app_reader;
grant select (no) on crm."Order %.item" to public;
alter default privileges in schema crm grant select on tables to app_reader;
comment on column crm.customer.mood is 'how they are';
reset role;
create rule quiet as on insert to crm.glad do instead nothing;
create statistics crm.together on name, mood from crm.customer;
"""

ROWS = """
insert into crm.customer (name, mail, mood, tags, data, place, price, born, secret)
select 'name ' || g || E' tab\\there\\\\ line\\nbreak', 'm' || g || '@x',
    (array['glad', 'it''s fine', 'sad'])[g %% 3 + 1]::crm.mood, array['a' || g, null, 'b,"c'],
    jsonb_build_object('g', g, 'long', repeat('x', g %% 50)), point(g, -g), g / 7.0,
    date '2000-01-01' + g %% 9000, decode(md5(g::text), 'hex')
from generate_series(1, {rows}) g;
insert into crm.customer (name, seen, price) values
    ('ünïcödé 🐘', 'infinity', 'NaN'), ('', null, null);
insert into crm."Order %%.item" select id, n, 'item ' || n
    from crm.customer, generate_series(1, 2) n;
insert into crm.event select timestamptz '2025-06-01' + g * interval '1 day', 'e' || g
    from generate_series(1, 400) g;
insert into crm.parent values (1), (null); insert into crm.child values (2, 'two');
insert into crm.nothing default values; insert into crm.nothing default values;
insert into crm.scratch values (1);
select setval('crm.ticket', 1234);
select lo_from_bytea(424242, decode(repeat('00ff', 700000), 'hex'));
select lo_from_bytea(424243, '');
alter large object 424242 owner to "Owner of crm";
grant select on large object 424242 to app_reader;
comment on large object 424242 is 'a picture';
refresh materialized view crm.count; refresh materialized view crm.count_again;
"""

_TABLES = """
select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and c.relpersistence = 'p'
  and n.nspname !~ '^(pg_|information_schema)'
  and n.nspname <> 'kryonix' and (c.relkind = 'r' or c.relispopulated) order by 1, 2
"""


def fill(server: PostgresServer, database: str, rows: int = 500) -> None:
    """Make everything in an empty database."""
    with server.connect(database) as connection:
        connection.execute(ROLES)
        connection.execute(SCHEMA)
        for statement in ROWS.format(rows=rows).replace("%%", "%").split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())
        name = sql.Identifier(database)
        for setting in ("search_path = crm, public", "work_mem = '7MB'", "timezone = 'Asia/Tokyo'"):
            connection.execute(sql.SQL("alter database {} set ").format(name) + sql.SQL(setting))
        connection.execute(
            sql.SQL("alter role \"Owner of crm\" in database {} set work_mem = '9MB'").format(name)
        )
        connection.execute(sql.SQL("revoke connect on database {} from public").format(name))
        connection.execute(sql.SQL("grant connect on database {} to app_reader").format(name))
        connection.execute(sql.SQL("comment on database {} is 'all of crm'").format(name))


def digest(server: PostgresServer, database: str) -> dict[str, tuple[int, str]]:
    """The number of rows of every table, and a digest that knows no order; large objects too."""
    return rows(server, database) | large_objects(server, database)


def rows(server: PostgresServer, database: str) -> dict[str, tuple[int, str]]:
    """The number of rows of every table, and a digest that knows no order."""
    found: dict[str, tuple[int, str]] = {}
    with server.connect(database) as connection:
        connection.execute(f"set client_encoding to {encoding_of(connection)}".encode())
        for setting in SETTINGS.items():
            connection.execute("select set_config(%s, %s, false)", setting)
        for schema, table in connection.execute(_TABLES).fetchall():
            query = sql.SQL(
                "select count(*), coalesce(sum(hashtextextended(t::text, 7)::numeric), 0)::text"
                " from only {} t"
            ).format(sql.Identifier(str(schema), str(table)))
            row = connection.execute(query).fetchone()
            assert row is not None
            found[f"{schema}.{table}"] = (int(str(row[0])), str(row[1]))
    return found


def large_objects(server: PostgresServer, database: str) -> dict[str, tuple[int, str]]:
    """The size of every large object, and a digest of it, its owner, its rights, its comment."""
    found: dict[str, tuple[int, str]] = {}
    with server.connect(database) as connection:
        for oid, owner, acl, said in connection.execute(
            "select oid::int8, pg_get_userbyid(lomowner), lomacl::text,"
            " obj_description(oid, 'pg_largeobject') from pg_largeobject_metadata"
        ).fetchall():
            content = connection.execute("select lo_get(%s)", (oid,)).fetchone()
            assert content is not None
            assert isinstance(content[0], bytes)
            text = hashlib.sha256(content[0]).hexdigest()
            found[f"large object {oid}"] = (len(content[0]), f"{text} {owner} {acl} {said}")
    return found


def schema(server: PostgresServer, database: str) -> str:
    """The schema as `pg_dump` tells it, without ours, and the words that differ from run to run."""
    said = server.run("pg_dump", "--schema-only", "--exclude-schema=kryonix", database)
    return "\n".join(
        line for line in said.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    )


def about(server: PostgresServer, database: str) -> list[object]:
    """What is said of the database itself, and its sequences."""
    with server.connect(database) as connection:
        sequences = connection.execute(
            "select schemaname, sequencename, last_value from pg_sequences order by 1, 2"
        ).fetchall()
        itself = connection.execute(
            "select pg_get_userbyid(datdba), array(select unnest(datacl)::text order by 1),"
            " shobj_description(d.oid, 'pg_database'),"
            " datcollate, datctype, array(select pg_get_userbyid(setrole) || setconfig::text"
            "   from pg_db_role_setting where setdatabase = d.oid order by 1)"
            " from pg_database d where datname = %s",
            (database,),
        ).fetchall()
    return [sequences, itself]
