"""A change of the schema is made again as it was, or the reason is told and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kryonix_backup.errors import RestoreError, SourceUnavailable
from kryonix_backup.sources.postgres.decoding.message import Ddl
from kryonix_backup.sources.postgres.restoring.guarding import Hush
from kryonix_backup.sources.postgres.restoring.repeating import _ALONE, repeat
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import SETTINGS, Connection, connected
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

pytestmark = pytest.mark.service

TEXT = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
ROLE = 'odd "role"; --'


class Restored:
    """A database that is being replayed into, and the connection that does it."""

    def __init__(self, server: PostgresServer, connection: Connection, address: Address) -> None:
        self.server = server
        self.connection = connection
        self.address = address

    def repeat(
        self,
        query: str,
        tag: str = "CREATE TABLE",
        *,
        role: str = "postgres",
        path: str = "public",
        missing: tuple[tuple[str, str, str, str], ...] = (),
        settings: tuple[tuple[str, str], ...] = (),
    ) -> None:
        ddl = Ddl(tag, query, path, role, missing, "", settings)
        repeat(self.connection, self.address, ddl, Hush(self.connection))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What another session sees."""
        with self.server.connect(self.address.database) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str) -> Any:
        ((value,),) = self.rows(query)
        return value


@pytest.fixture
def restored(postgres: PostgresServer) -> Iterator[Restored]:
    address = Address.parse(postgres.url(new_database(postgres, "repeated")))
    options = f"-c session_replication_role=replica {TEXT}"
    with connected(address, options=options) as connection:
        one = Restored(postgres, connection, address)
        quoted = ROLE.replace('"', '""')
        one.rows(
            f'do $$ begin create role "{quoted}"; exception when duplicate_object then null; end $$'
        )
        one.rows(f'create schema theirs authorization "{quoted}"')
        yield one
        if connection.closed:
            return
        settled = connection.execute(
            "select current_user::text, session_user::text, current_setting('search_path'),"
            " current_setting('session_replication_role'), current_setting('DateStyle'),"
            " current_setting('TimeZone')"
        ).fetchone()
        assert settled == (
            "postgres", "postgres", "pg_catalog,pg_temp", "replica", "ISO, YMD", "UTC"
        )  # fmt: skip


OWNER = "select pg_get_userbyid(relowner), relnamespace::regnamespace::text from pg_class"


def test_it_is_made_by_the_role_and_in_the_schema_of_then(restored: Restored) -> None:
    restored.repeat("create table t (a int)", role=ROLE, path='nowhere, "$user", theirs, public')
    restored.repeat("create table t (a int)")
    restored.repeat('create table "other ä" ()', role=ROLE, path="theirs")

    assert restored.rows(f"{OWNER} where relname in ('t', 'other ä') order by 2, relname") == [
        ("postgres", "public"), (ROLE, "theirs"), (ROLE, "theirs"),
    ]  # fmt: skip


def test_a_role_that_is_missing_is_told(restored: Restored) -> None:
    with pytest.raises(RestoreError, match="role gone does not exist: create table t") as told:
        restored.repeat("create table t (a int)", role="gone")

    assert told.value.hint == "Make the role, and restore again."
    assert restored.value("select to_regclass('public.t')") is None


@pytest.mark.parametrize("role", ["none", "public", "", "current_user"])
def test_words_that_stand_for_roles_are_none(restored: Restored, role: str) -> None:
    with pytest.raises(RestoreError, match="does not exist"):
        restored.repeat("create table t (a int)", role=role)


def test_a_role_may_only_do_what_it_may(restored: Restored) -> None:
    with pytest.raises(RestoreError, match="permission denied for schema pg_catalog") as told:
        restored.repeat("create table pg_catalog.t (a int)", role=ROLE, path="theirs")

    assert restored.address.shown in told.value.message
    assert "next full backup" in told.value.hint


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("create table t (a nothing)", 'type "nothing" does not exist'),
        ("create tble t ()", "syntax error"),
        ("create table t (a int); select 1/0", "division by zero"),
        ("create table t (a int)\0; drop table u", "zero byte"),
        ("create table t (a text default '\ud800')", "cannot be sent"),
        ("begin; create table t (a int)", "transaction"),
        ("create table t (a int); copy t from stdin", "COPY"),
    ],
)
def test_what_fails_leaves_nothing(restored: Restored, query: str, reason: str) -> None:
    with pytest.raises(RestoreError, match=reason):
        restored.repeat(query)

    assert restored.value("select to_regclass('public.t')") is None


@pytest.mark.parametrize(
    "query",
    [
        "create table t (a text default '%s %% {} $1')",
        "create table t (a text default E'\\'; drop table u; --')",
        "create table t (a int) -- it's",
        "/* ' */ create table t (\n\ta int\n);\n",
        "create table t (a text default $$;'$$ || '🐘')",
    ],
)
def test_any_text_is_sent_as_it_is(restored: Restored, query: str) -> None:
    restored.repeat(query)

    restored.rows("insert into t default values")


def test_an_error_shows_no_more_than_the_beginning_in_one_line(restored: Restored) -> None:
    with pytest.raises(RestoreError) as told:
        restored.repeat("create\n\n\ttable \x1b[31m" + "x" * 5000)

    assert told.value.message.isprintable()
    assert len(told.value.message) < 500


@pytest.mark.parametrize(
    "left",
    [
        "set DateStyle = 'SQL,DMY'",
        "set TimeZone = 'UTC+5'",
        "set search_path = public", "set session_replication_role = origin",
    ],
)  # fmt: skip
def test_what_a_statement_sets_does_not_outlast_it(restored: Restored, left: str) -> None:
    restored.repeat(f"create table t (a int); {left}")
    restored.repeat("create table u (a int)")

    assert restored.rows("select current_user from t union select current_user from u") == []


@pytest.mark.parametrize(
    "left", ["set role", "set session authorization", "/**/ reset role; set role"]
)
def test_a_statement_stays_with_its_role(restored: Restored, left: str) -> None:
    with pytest.raises(RestoreError, match="security-definer"):
        restored.repeat(f"create table theirs.t (a int); {left} postgres", role=ROLE, path="theirs")

    assert restored.value("select to_regclass('theirs.t')") is None


@pytest.mark.parametrize(
    "query",
    [
        "create index concurrently i on t (a); reset role; create table u ()",
        "-- x\rcreate table u () /*\n create index concurrently */",
        "/* /* */ create index concurrently */ create table u ()",
        'alter table t add "detach partition x concurrently" int; create table u ()',
        "alter table t detach partition x concurrently; create table u ()",
    ],
)
def test_what_runs_outside_a_transaction_is_one_statement(restored: Restored, query: str) -> None:
    """Only what is known to run no code of the tenant's may run without its role being held."""
    restored.repeat("create table t (a int)", role=ROLE, path="theirs")
    alone = _ALONE.fullmatch(query)
    assert alone is None or ";" in query
    if alone:
        with pytest.raises(RestoreError, match="multiple commands"):
            restored.repeat(query, "CREATE INDEX", role=ROLE, path="theirs")
        assert restored.value("select to_regclass('theirs.u')") is None


def test_a_partition_is_detached_outside_a_transaction(restored: Restored) -> None:
    restored.repeat("create table t (a int) partition by list (a)")
    restored.repeat('create table "P 1" partition of t default')
    restored.repeat("alter table t add b int")
    restored.repeat('alter table "P 1" rename to p')
    restored.repeat("create table q partition of t for values in (1)")
    restored.rows("drop table p")
    restored.repeat("/* x */ alter table public.t detach partition q concurrently;", "ALTER TABLE")

    assert (
        restored.value("select count(*) from pg_inherits i where i.inhparent = 't'::regclass") == 0
    )


def test_it_runs_outside_a_transaction_where_it_has_to(restored: Restored) -> None:
    restored.repeat("create table t (a int)")
    restored.repeat("create index concurrently i on t (a)", "CREATE INDEX")
    restored.repeat("drop index concurrently i", "DROP INDEX")

    assert restored.value("select count(*) from pg_index where indrelid = 't'::regclass") == 0


def test_many_changes_go_through_one_connection(restored: Restored) -> None:
    for number in range(12):  # the driver prepares a statement that comes again
        restored.repeat(f"create table t{number} (a int)", missing=(("public", "x", "y", "z"),))

    assert restored.value("select count(*) from pg_class where relname ~ '^t[0-9]+$'") == 12


def test_a_server_that_goes_away_says_nothing_about_the_statement(
    postgres: PostgresServer,
) -> None:
    address = Address.parse(postgres.url(new_database(postgres, "repeated")))
    ddl = Ddl(
        "CREATE TABLE", "create table t as select pg_sleep(0)", "public", "postgres", (), "", ()
    )
    with connected(address) as connection:
        with postgres.connect() as other:
            other.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with pytest.raises(SourceUnavailable):
            repeat(connection, address, ddl, Hush(connection))


# ---------------------------------------------------------------------- tables out of queries


@pytest.mark.parametrize(
    "query",
    [
        "create table t as select 1 as a",
        "create table t as select 1 as a; ",
        "create table t as select 1 as a ; ;\n",
        "create table t as select 1 as a with data",
        "create table t as select 1 as a WITH  DATA;",
        "create table t as select 1 as a with no data",
        "create table t as select 1 as a with\nno data ;",
        "create table t as select 1 as a -- with no data",
        "create table t as select 1 as a with data -- with no data",
        "create table t as select 1 as a -- the end",
        "create table t as select 1 as a; -- the end",
        "create table t as select 1 as a with data; /* the end */",
        "create table t as select 1 as a /* with no data */",
        "create table t (a) as values (1)",
        "create table t as with data as (select 1 as a) select a from data",
        "create table t as with data as (select 1 as a) select a from data with data",
        "create unlogged table t as table pg_am",
        "create table t as select ';' as a",
        "create table t as select 'with no data' as a",
        "create table t as select 'with no data' as a with data",
        """create table t as select 1 as "with data" """,
    ],
)
def test_a_table_out_of_a_query_comes_without_rows(restored: Restored, query: str) -> None:
    restored.repeat(query, "CREATE TABLE AS")

    assert restored.value("select count(*) from t") == 0


def test_the_query_of_a_table_is_not_run(restored: Restored) -> None:
    restored.repeat("create table t as select 1 / (random() * 0)::int as a", "CREATE TABLE AS")
    with pytest.raises(RestoreError, match='relation "u" does not exist'):
        restored.repeat("create table v as select * from u with data", "CREATE TABLE AS")
    with pytest.raises(RestoreError, match="unterminated quoted string"):
        restored.repeat("create table v as select ('", "CREATE TABLE AS")


# ---------------------------------------------------------------------- views


REFRESH = "REFRESH MATERIALIZED VIEW"


def test_a_view_that_is_filled_is_filled_again(restored: Restored) -> None:
    restored.rows("create table t as select 1 as a")
    restored.repeat('create materialized view "V w" as table t', "CREATE MATERIALIZED VIEW")
    restored.rows("insert into t values (2)")
    restored.repeat(f'{REFRESH} public."V w"', REFRESH)
    assert restored.value('select count(*) from "V w"') == 2

    restored.repeat(f'{REFRESH} public."V w" WITH NO DATA', REFRESH)
    filled = """select relispopulated from pg_class where relname = 'V w'"""
    assert restored.value(filled) is False

    restored.repeat(f'{REFRESH} public."V w"', REFRESH)
    assert restored.value(filled) is False  # it is when everything is there


def test_a_view_that_is_not_there_is_told(restored: Restored) -> None:
    with pytest.raises(RestoreError, match="does not exist"):
        restored.repeat(f"{REFRESH} public.v", REFRESH)
    with pytest.raises(RestoreError, match="syntax"):
        restored.repeat(f"{REFRESH} public..v", REFRESH)


# ---------------------------------------------------------------------- rows that are there


def test_rows_get_the_values_of_then(restored: Restored) -> None:
    restored.rows("create table t as select generate_series(1, 3) as a")
    then = "2001-02-03 04:05:06+00"
    restored.repeat(
        "alter table t add b timestamptz default now(), add c text not null default 'it''s \\',"
        " add d int[] default '{1,2}', add e int",
        "ALTER TABLE",
        missing=(
            ("public", "t", "b", then),
            ("public", "t", "c", "it's \\"),
            ("public", "t", "d", "{1,2}"),
        ),
    )
    restored.rows("insert into t values (4)")

    assert restored.rows(
        f"select a, b = '{then}', b > now() - interval '1 hour', c, d, e from t order by a"
    ) == [
        *[(number, True, False, "it's \\", [1, 2], None) for number in (1, 2, 3)],
        (4, False, True, "it's \\", [1, 2], None),
    ]


@pytest.mark.parametrize(
    ("change", "schema", "table", "column"),
    [
        ("alter table t rename column b to c", "public", "t", "c"),
        ("alter table t rename to u", "public", "u", "b"),
        ("alter table t set schema theirs", "theirs", "t", "b"),
        ("alter table t add d int default 5", "public", "t", "b"),
    ],
)
def test_a_column_that_was_there_keeps_its_values_whatever_it_is_called(
    restored: Restored, change: str, schema: str, table: str, column: str
) -> None:
    restored.rows("create table t as select 1 as a")
    restored.rows("alter table t add b int default 5")
    restored.rows("update t set b = 9")
    restored.repeat(change, "ALTER TABLE", missing=((schema, table, column, "5"),))

    assert restored.value(f"select {column} from {schema}.{table}") == 9


def test_a_column_that_takes_the_place_of_another_is_a_new_one(restored: Restored) -> None:
    restored.rows("create table t as select 1 as a, 2 as b")
    restored.repeat(
        "alter table t drop b, add b int default 7", "ALTER TABLE",
        missing=(("public", "t", "b", "6"),),
    )  # fmt: skip

    assert restored.value("select b from t") == 6


def test_every_partition_gets_the_values_of_then(restored: Restored) -> None:
    restored.rows("create table t (a int) partition by list (a)")
    restored.rows("create table t1 partition of t for values in (1)")
    restored.rows('create table theirs."T 2" partition of t for values in (2)')
    restored.rows("insert into t values (1), (2)")
    restored.repeat(
        "alter table t add b int default 3", "ALTER TABLE",
        missing=(("public", "t1", "b", "4"), ("theirs", "T 2", "b", "5")),
    )  # fmt: skip

    assert restored.rows("select a, b from t order by a") == [(1, 4), (2, 5)]


def test_a_value_that_does_not_fit_is_told(restored: Restored) -> None:
    restored.rows("create table t as select 1 as a")
    with pytest.raises(RestoreError, match="invalid input syntax for type integer"):
        restored.repeat(
            "alter table t add b int default 3", "ALTER TABLE",
            missing=(("public", "t", "b", "x"),),
        )  # fmt: skip
