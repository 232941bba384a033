"""What is written into the log about changes of the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from kryonix_backup.sources.postgres.preparation.preparing_sql import TRIGGERS, functions
from kryonix_backup.testing.postgres import PostgresServer
from tests.sources.postgres.prepared import PreparedDatabase

pytestmark = pytest.mark.service


@pytest.fixture(params=["postgres", "plain_tenant"])
def tenant(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[PreparedDatabase]:
    """A prepared database, as a superuser and as an ordinary role sees it."""
    with PreparedDatabase(postgres, request.param) as made:
        yield made
        assert made.warnings == []


@pytest.fixture
def prepared(postgres: PostgresServer) -> Iterator[PreparedDatabase]:
    """A prepared database of the superuser."""
    with PreparedDatabase(postgres) as made:
        yield made


def test_nothing_is_left_to_be_filled_in() -> None:
    for function in functions("kryonix_acme"):
        assert not re.search(r"@\w+@", function.create)
    assert {trigger.function for trigger in TRIGGERS} <= {each.name for each in functions("x")}


def test_a_statement_is_written_once_as_it_was_typed(tenant: PreparedDatabase) -> None:
    tenant.connection.execute("create schema crm")
    tenant.connection.execute("set search_path = crm, public")
    (_, made) = tenant.run("create table  item (id int primary key, n text)")
    (altered,) = tenant.run("alter table item drop column n")
    (dropped,) = tenant.run("drop table item")

    assert made.query == "create table  item (id int primary key, n text)"
    assert (made.tag, made.search_path, made.opaque) == ("CREATE TABLE", "crm, public", "")
    assert made.role == tenant.connection.info.user
    assert (altered.tag, altered.opaque) == ("ALTER TABLE", "")
    assert (dropped.tag, dropped.opaque) == ("DROP TABLE", "")


def test_what_rows_got_for_a_new_column_is_written(tenant: PreparedDatabase) -> None:
    tenant.run("create table t (id int primary key)", "create table kid () inherits (t)")
    tenant.connection.execute("set DateStyle = 'SQL, DMY'")
    tenant.connection.execute("set TimeZone = 'Asia/Tokyo'")
    told = tenant.one(
        "alter table t add a timestamptz default '2026-01-02 03:04:05+00', add b text"
        " default 'it''s', add c int[] default '{1,2}', add d int"
    )

    values = {(table, column): text for _, table, column, text in told.missing}
    assert values["t", "a"] == values["kid", "a"] == "2026-01-02 03:04:05+00"
    assert (values["t", "b"], values["t", "c"]) == ("it's", "{1,2}")
    assert ("t", "d") not in values
    assert told.opaque == ""


def test_what_is_done_with_large_objects_is_not_written(tenant: PreparedDatabase) -> None:
    tenant.run("select lo_create(4242)")
    done = (
        f"alter large object 4242 owner to {tenant.connection.info.user}",
        "grant select on large object 4242 to public",
        "comment on large object 4242 is 'it stands in no log, nor does what is said of it'",
        "do $$ begin grant update on large object 4242 to public; end $$",
    )

    assert tenant.run(*done) == []
    assert [told.tag for told in tenant.run("create schema other")] == ["CREATE SCHEMA"]


@pytest.mark.parametrize(
    "statement",
    [
        "create temporary table passing (a int)",
        "create temp table passing (a serial primary key); alter table passing add b int",
        "create temp table passing as select 1 as a",
        "create temp table passing (a int); drop table passing",
        "create temp table passing (a int); create index on passing (a)",
        "create table if not exists there (a int)",
        "select 1 as a into temp passing",
        "reindex table there",
    ],
)
def test_what_is_temporary_or_not_done_is_not_written(
    prepared: PreparedDatabase, statement: str
) -> None:
    prepared.run("create table there (a int primary key)")

    assert prepared.run(*statement.split("; ")) == []


def test_a_table_that_explain_makes_is_told_by_nobody(prepared: PreparedDatabase) -> None:
    """PostgreSQL fires no event trigger there: a log of its rows names a table that is not made."""
    told = prepared.run(
        "explain (analyze) create table made as select 1 as a", "alter table made add b int"
    )

    assert [message.query for message in told] == ["alter table made add b int"]
    assert prepared.run("update made set a = 2") == []


def _sent(statement: str) -> list[str]:
    """A prepared statement comes first, and alone."""
    return statement.split("; ") if statement.startswith("prepare") else [statement]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("do $$ begin create table made (a int); end $$", "inside a function"),
        ("select make('create table made (a int)')", "inside a function"),
        ("call make_it()", "inside a function"),
        ("create table made as select make('create view seen as select 1')", "inside a function"),
        ("create table made (a int); create table other (a int)", "with other statements"),
        ("create table made (a int); /* x */ delete from there", "with other statements"),
        ("insert into there values (2); create table made (a int)", "inside a function"),
        (r"create table made (a text default E'\''); select 1", "with other statements"),
        ("alter table there alter a type bigint", "rewrote the rows of public.there"),
        ("alter table there add b float default random()", "rewrote the rows of public.there"),
        ("select * into made from there", "with INTO"),
        ("prepare p as select 1 as a; create table made as execute p", "prepared query"),
        ("create table made (a date default 'today')", "the time at which it ran"),
        ("create view made as select 1 where now() > 'now '::timestamptz", "the time at which"),
        ("create table made partition of parts for values from (current_date) to (maxvalue)",
         "the time at which it ran"),
        ("alter publication @ours@ set (publish = 'insert')", "our publication"),
        ("alter publication @ours@ rename to other", "our publication"),
        ("drop publication @ours@", "our publication"),
    ],
)  # fmt: skip
def test_what_cannot_be_repeated_says_why(
    prepared: PreparedDatabase, statement: str, reason: str
) -> None:
    prepared.run(
        "create table there (a int primary key)",
        "create table parts (d date) partition by range (d)",
        "create function make(text) returns int language plpgsql as"
        " $$ begin execute $1; return 1; end $$",
        "create procedure make_it() language plpgsql as $$ begin create table made (a int);"
        " commit; end $$",
    )
    told = prepared.run(*_sent(statement.replace("@ours@", prepared.slot)))

    assert any(reason in message.opaque for message in told), told
    if "seen" not in statement:
        assert all(message.opaque for message in told)


@pytest.mark.parametrize(
    "statement",
    [
        "create table a (a text default 'x; y');",
        'create table a ("a; b" int) ; -- the end; really\n',
        "-- it's\ncreate table a (a int /* ; */) ; /* ; */",
        "create function f() returns int language plpgsql as $x$ begin return $$1;$$; end; $x$",
        "create or replace function f(a int) returns int language sql as $$ select $1; $$;",
        "create unlogged table a (a int);",
        "/* first */ create or replace temporary view v as select ';' as a",
        "comment on schema public is 'it''s; here'",
        "create table a$b$c (a text default ';')",
    ],
)
def test_one_statement_is_known_as_one(prepared: PreparedDatabase, statement: str) -> None:
    told = prepared.run(statement)

    assert [message.opaque for message in told] in ([""], [])
    assert told or "temporary" in statement


def test_what_another_server_said_is_not_asked_again(prepared: PreparedDatabase) -> None:
    text = "import foreign schema far from server there into public"
    with prepared.server.connect(prepared.database) as connection:
        row = connection.execute(
            "select kryonix.kryonix_opaque('IMPORT FOREIGN SCHEMA', %s, '')", (text,)
        ).fetchone()

    assert row == ("it asked another server",)


@pytest.mark.parametrize(
    "query",
    [
        "create table a (a int); drop table b",
        "create table a (a int); -- one\ndrop table b",
        "create table a (a int); /* one */ drop table b",
        r"create table a (a text default E'\''); drop table b --'",
        "create table a$$ (a int); create table b$$ (a int)",
        "create table a (a text default 'x''y'); drop table b",
        "create table a (a int /* /* ; */ '; */); drop table b --'",
        "create table a (a text default $a$ $b$ $a$); drop table b -- $b$",
        "create table a -- it's\n (a int); drop table b -- it's",
        'create table "it\'s" (a int); drop table "it\'s"',
    ],
)
def test_several_statements_are_never_taken_for_one(prepared: PreparedDatabase, query: str) -> None:
    with prepared.server.connect(prepared.database) as connection:
        row = connection.execute("select kryonix.kryonix_several(%s)", (query,)).fetchone()

    assert row == (True,)


@pytest.mark.parametrize(
    "statements",
    [
        ("create table t (a int)",),
        ("create table t (a int primary key deferrable)",),
        ("create table t as select 1 as a",),
        ("create table t (a int primary key)", "alter table t drop constraint t_pkey"),
        ("create table t (a int primary key)", "alter table t replica identity nothing"),
        ("create table t (a int not null)", "create unique index i on t (a)",
         "alter table t replica identity using index i", "drop index i"),
        ("create table t (a int, b int) partition by list (b)",
         "create table leaf partition of t for values in (1, null)"),
        ("create table t (a int, b int, primary key (a, b)) partition by list (b)",
         "create table leaf partition of t for values in (1)",
         "alter table t drop constraint t_pkey"),
        ("create schema other create table t (a int)", "set search_path = other"),
        ("create unlogged table t (a int)", "alter table t set logged"),
    ],
    ids=lambda statements: statements[-1],
)  # fmt: skip
def test_rows_can_always_be_changed(tenant: PreparedDatabase, statements: tuple[str, ...]) -> None:
    told = tenant.run(*statements)
    columns = "a, b" if "b int" in statements[0] else "a"
    tenant.run(f"insert into t ({columns}) values ({columns.replace('a', '1').replace('b', '1')})")
    tenant.run("update t set a = 2", "delete from t")

    assert len(told) == len([each for each in statements if not each.startswith("set ")])


def test_a_view_is_filled_again_by_a_statement_of_its_own(prepared: PreparedDatabase) -> None:
    prepared.run(
        "create table t (a int primary key)", "create materialized view v as select * from t",
        "create unique index on v (a)",
    )  # fmt: skip
    statements = (
        "refresh materialized view v",
        "refresh materialized view concurrently v",
        "do $$ begin refresh materialized view v with no data; end $$",
    )
    told = prepared.run(*statements)

    assert [(message.query, message.opaque) for message in told] == [
        ("REFRESH MATERIALIZED VIEW public.v", ""),
        ("REFRESH MATERIALIZED VIEW public.v", ""),
        ("REFRESH MATERIALIZED VIEW public.v WITH NO DATA", ""),
    ]


def test_an_extension_is_written_as_itself(prepared: PreparedDatabase) -> None:
    told = prepared.run("create extension pg_trgm", "drop extension pg_trgm")

    assert [(message.tag, message.opaque) for message in told] == [
        ("CREATE EXTENSION", ""), ("DROP EXTENSION", "")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sabotage",
    [
        "drop function kryonix.kryonix_opaque(text, text, text)",
        "drop function kryonix.kryonix_record(text, text, json, text)",
        "drop function kryonix.kryonix_identify(text)",
        "drop function kryonix.kryonix_say(text)",
        "drop table kryonix.told",
        """create or replace function kryonix.kryonix_own(stack text) returns boolean
        language plpgsql as $$ begin raise exception 'no'; end $$""",
        "revoke usage on schema kryonix from public",
        "alter table kryonix.identity rename to another",
    ],
)
def test_whatever_happens_to_ours_the_tenant_goes_on(
    postgres: PostgresServer, sabotage: str
) -> None:
    with PreparedDatabase(postgres, "plain_tenant") as tenant:
        tenant.admin(sabotage)
        tenant.told()
        (told,) = tenant.run("create table t (a int primary key)")
        tenant.run("insert into t values (1)", "alter table t add b int", "drop table t")
        tenant.run("create table u (a int)")

        if "kryonix_identify" in sabotage or "identity" in sabotage:
            assert tenant.warnings
        elif sabotage.startswith("revoke"):
            assert told.opaque == ""  # our trigger has its owner's rights
        else:
            assert told.opaque.startswith("it could not be recorded: ")


def test_ours_fires_also_while_others_are_told_to_rest(prepared: PreparedDatabase) -> None:
    prepared.connection.execute("set session_replication_role = replica")

    assert prepared.one("create table t (a int primary key)").tag == "CREATE TABLE"


@pytest.mark.parametrize(
    "trap",
    [
        "create temp view pg_inherits as select 0::oid as inhrelid, trap()::oid as inhparent",
        "create temp view pg_publication as select 'x'::name as pubname where trap() = 1",
        "create temp view pg_class as select c.*, trap() from pg_catalog.pg_class c",
        "create domain pg_temp.text as pg_catalog.text check (trap() = 0)",
    ],
)
def test_what_a_session_calls_like_the_catalog_is_not_run_by_us(
    postgres: PostgresServer, trap: str
) -> None:
    with PreparedDatabase(postgres, "trapper") as tenant:
        tenant.run(
            "create function trap() returns int language plpgsql as $$ begin"
            " begin alter role trapper superuser; exception when others then null; end;"
            " return 0; end $$",
            trap,
            "create table t (a int)", "alter table t add b int default 3", "drop table t",
        )  # fmt: skip
        found = tenant.admin("select rolsuper from pg_roles where rolname = 'trapper'")
        tenant.admin("alter role trapper nosuperuser")

        assert found == [(False,)]


def test_what_is_undone_leaves_nothing_behind(prepared: PreparedDatabase) -> None:
    with prepared.connection.transaction(force_rollback=True):
        prepared.connection.execute("create table t (a int)")
        prepared.connection.execute("alter table t alter a type text")
    told = prepared.run("create table t (a int primary key)")

    assert [message.opaque for message in told] == [""]
