"""Whatever a tenant leaves in a database to be run, a restore gives it no rights but its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from kryonix_backup.errors import RestoreError
from kryonix_backup.sources.postgres.restoring.guarding import Hush, guards, run_as
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection, connected
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored, tenant_of
from tests.sources.postgres.story import Story

pytestmark = pytest.mark.service

ROLE = "guarded"
EVIL = (
    """create function public.evil() returns boolean language plpgsql as $$ begin
    begin perform set_config('role', 'none', false); exception when others then null; end;
    begin set session authorization default; exception when others then null; end;
    begin alter role guarded superuser; exception when others then null; end;
    return true; end $$""",
    """create function public.quiet(int) returns int language plpgsql immutable as
    $$ begin perform public.evil(); return $1; end $$""",
    """create function public.still() returns int language plpgsql stable as
    $$ begin perform public.evil(); return 1; end $$""",
)
TABLES = (
    "create domain public.small as int check (public.evil())",
    "create table public.checked (a int primary key, b text, check (public.evil()))",
    "alter table public.checked alter b set storage external",
    "create table public.made (a int primary key, b int generated always as (quiet(a)) stored)",
    "create table public.typed (a public.small primary key, b public.small[], c text)",
    "create table public.split (a int primary key)",
    "create table public.parted (a int) partition by list (public.quiet(a))",
    "create table public.one partition of public.parted default",
    "create table public.plain (a int primary key, b text)",
    "create table public.loose (a public.small, b boolean)",
    "create table public.empty (check (public.evil()))",
    "create function apart.fine(int) returns boolean language sql as 'select $1 > 0'",
    "create domain apart.one as int check (apart.fine(value))",
    "create table apart.far (a apart.one primary key, check (apart.fine(a)))",
)
ROWS = (
    "insert into checked select g, repeat(md5(g::text), 200) from generate_series(1, 9) g",
    "insert into made select generate_series(1, 9)",
    "insert into typed select g, array[g, null], E'a\\tb\\\\' from generate_series(1, 9) g",
    "insert into parted select generate_series(1, 9)",
    "insert into plain select g, 'b' from generate_series(1, 9) g",
    "insert into loose select g % 3, g % 2 = 0 from generate_series(1, 9) g",
    "insert into empty default values",
    "insert into apart.far select generate_series(1, 9)",
)


def _role(server: PostgresServer) -> None:
    with server.connect() as connection:
        connection.execute(
            f"do $$ begin create role {ROLE} login; exception when duplicate_object then null;"
            " end $$"
        )


def _as_tenant(server: PostgresServer, database: str, *statements: str) -> None:
    with server.connect(database, ROLE) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _is_superuser(server: PostgresServer) -> bool:
    """Whether the attack has come through; it has not afterwards."""
    with server.connect() as connection:
        found = connection.execute("select rolsuper from pg_roles where rolname = %s", (ROLE,))
        row = found.fetchone()
        connection.execute(f"alter role {ROLE} nosuperuser")
    assert row is not None
    return bool(row[0])


def _open(server: PostgresServer, database: str) -> None:
    """The tenant may make something; in one of the schemas by a right that is granted."""
    _role(server)
    with server.connect(database) as connection:
        connection.execute(f"create schema apart; grant usage, create on schema apart to {ROLE}")
        connection.execute(f"grant create on schema public to {ROLE}")


def test_what_runs_where_rows_are_loaded_has_its_owners_rights(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = new_database(postgres)
    _open(postgres, database)
    _as_tenant(postgres, database, *EVIL, *TABLES, *ROWS)
    assert not _is_superuser(postgres)
    client = tenant_of(postgres.url(database), tmp_path)
    client.backup()

    report = restored(client, postgres.url(f"{database}_back"))

    assert not _is_superuser(postgres)
    assert report.status == "complete"
    assert rich.rows(postgres, f"{database}_back") == rich.rows(postgres, database)
    assert rich.schema(postgres, f"{database}_back") == rich.schema(postgres, database)


def test_what_runs_where_a_log_is_replayed_has_its_owners_rights(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    story = Story(postgres, tmp_path)
    _open(postgres, story.database)
    _as_tenant(postgres, story.database, *EVIL, *TABLES, *ROWS)
    story.begin()
    series: tuple[tuple[str, ...], ...] = (
        ("update checked set a = a + 100 where a < 4", "delete from checked where a = 5",
         "update made set a = -a where a < 4", "delete from typed where a = 2",
         "update typed set c = 'c' where a = 3", "delete from loose where b",
         "insert into loose values (7, true)", "insert into parted values (77)"),
        ("alter table plain add c int default still()",
         "alter table plain add constraint odd check (evil())",
         "create index on plain (quiet(a))",
         "create view seen as select evil()",
         "create materialized view held as select evil()",
         "insert into plain values (10, 'after')", "update plain set b = 'c' where a = 1"),
        ("insert into checked values (1000, 'x')", "insert into typed values (20, '{1}', 'x')",
         "delete from plain where a = 2"),
    )  # fmt: skip
    for part in series:
        _as_tenant(postgres, story.database, *part)
        story.remember()
    story.run("select 1")
    story.client.back_up_logs()
    assert not _is_superuser(postgres)

    story.prove()

    assert not _is_superuser(postgres)


def test_what_an_owner_changes_meanwhile_is_not_run_by_us(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """A check that is run for one table gives one to all the others."""
    story = Story(postgres, tmp_path)
    _open(postgres, story.database)
    names = ("a", "b", "c", "d")
    _as_tenant(
        postgres, story.database, *EVIL,
        """create function public.spread() returns boolean language plpgsql as $$
        declare name text; begin
        perform public.evil();
        foreach name in array '{a,b,c,d}'::text[] loop
          begin execute format('alter table public.%I add check (public.evil())', name);
          exception when others then null; end;
        end loop; return true; end $$""",
        *(f"create table {name} (id int primary key, check (id > 0))" for name in names),
        "alter table b add check (case when current_setting('session_replication_role') = 'replica'"
        " then public.spread() else true end)",
    )  # fmt: skip
    story.begin()
    _as_tenant(postgres, story.database, *(f"insert into {name} values (1)" for name in names))
    moment = story.remember()
    story.client.back_up_logs()

    target = story.restored_at(moment)

    assert not _is_superuser(postgres)
    checks = "select count(*) from pg_constraint where contype = 'c' and conname = 'd_check'"
    with postgres.connect(target) as connection:
        assert connection.execute(checks).fetchone() == (1,)  # so it was run


def test_triggers_that_fire_always_do_it_once(postgres: PostgresServer, tmp_path: Path) -> None:
    story = Story(postgres, tmp_path)
    story.run(
        "create table t (a int primary key)", "create table noted (a int primary key)",
        "create function note() returns trigger language plpgsql as"
        " $$ begin insert into noted values (new.a); return new; end $$",
        "create trigger always after insert on t for each row execute function note()",
        "alter table t enable always trigger always",
        "create trigger elsewhere after insert on t for each row execute function note()",
        "alter table t enable replica trigger elsewhere",
        "create rule gone as on delete to t do also insert into noted values (-old.a)",
        "alter table t enable always rule gone",
        "create table heard (what text)",
        "create function hear() returns event_trigger language plpgsql as"
        " $$ begin insert into public.heard values (tg_tag); end $$",
        "create event trigger hearing on ddl_command_end execute function hear()",
        "alter event trigger hearing enable always",
    )  # fmt: skip
    story.begin()
    story.tell(
        ("insert into t values (1)",),
        ("create table u (a int primary key)", "insert into t values (2), (3)",
         "delete from t where a = 2"),
        ("alter table t enable trigger always", "insert into t values (4)"),
        ("alter table t add b int", "insert into t values (5)", "delete from t where a = 4"),
    )  # fmt: skip
    story.prove()


# ---------------------------------------------------------------------- run_as


@pytest.fixture
def connection(postgres: PostgresServer) -> Iterator[Connection]:
    """To a database in which the tenant may make something."""
    database = new_database(postgres)
    _open(postgres, database)
    _as_tenant(postgres, database, *EVIL)
    options = "-c session_replication_role=replica"
    with connected(Address.parse(postgres.url(database)), options=options) as one:
        yield one
        assert one.execute("select current_user::text, session_user::text").fetchone() == (
            "postgres", "postgres",
        )  # fmt: skip
    assert not _is_superuser(postgres)


def test_it_runs_with_that_roles_rights(connection: Connection) -> None:
    run_as(connection, ROLE, "create table public.t (a int)")
    assert run_as(connection, ROLE, "insert into public.t values (1), (2)") == 2
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run_as(connection, ROLE, "create table pg_catalog.t (a int)")
    with pytest.raises(psycopg.Error, match="within security-definer function"):
        run_as(connection, ROLE, "set role none")

    owner = "select pg_get_userbyid(relowner) from pg_class where relname = 't'"
    assert connection.execute(owner).fetchone() == (ROLE,)


@pytest.mark.parametrize(
    "left",
    [
        "select public.evil()",
        "declare left_open cursor with hold for select public.evil()",
        "set search_path = public",
        "prepare _pg3_0 as select public.evil()",
        "create temp view pg_class as select public.evil()",
        "create domain pg_temp.text as pg_catalog.text check (public.evil())",
    ],
)
def test_nothing_is_left_to_be_run_by_us(connection: Connection, left: str) -> None:
    run_as(connection, ROLE, left)
    for _ in range(10):
        connection.execute("select count(*), max(relname::text) from pg_class")

    path = connection.execute("select current_setting('search_path')").fetchone()
    assert path == ("pg_catalog,pg_temp",)


def test_a_trigger_that_waits_for_the_end_is_refused(connection: Connection) -> None:
    run_as(connection, ROLE, "create table public.t (a int)")
    run_as(
        connection,
        ROLE,
        "create function public.late() returns trigger language plpgsql as"
        " 'begin perform public.evil(); return new; end'",
    )
    with pytest.raises(RestoreError, match=r"waits on public\.t is deferrable"):
        run_as(
            connection,
            ROLE,
            "create constraint trigger waits after insert on public.t deferrable initially deferred"
            " for each row execute function public.late();"
            " alter table public.t enable always trigger waits; insert into public.t values (1)",
        )

    assert connection.execute("select count(*) from public.t").fetchone() == (0,)


# ---------------------------------------------------------------------- which tables


def test_tables_where_code_of_the_tenants_runs_are_found(connection: Connection) -> None:
    for statement in TABLES:
        run_as(connection, ROLE, f"set search_path = public; {statement}")
    run_as(
        connection, ROLE,
        "create table public.harmless (a int check (a > 0), b text check (lower(b) = b));"
        "create index on public.harmless (upper(b)) where a <> 5;"
        "create table public.indexed (a int); create index on public.indexed (public.quiet(a))",
    )  # fmt: skip
    found = guards(connection)

    assert {name for _, name in found} == {
        "checked", "made", "typed", "one", "loose", "empty", "indexed", "far"
    }  # fmt: skip
    typed = found["public", "typed"]
    assert (typed.owner, typed.hidden) == (ROLE, frozenset({"b"}))
    assert (typed.types["a"], typed.plain["a"]) == ("public.small", "integer")
    assert list(guards(connection, [("public", "made")])) == [("public", "made")]


@pytest.mark.parametrize(
    "expression",
    [
        "lo_export(1, '/nowhere') = 1",
        "pg_read_file('/etc/passwd') is not null",
        "query_to_xml('select 1', true, true, '') is not null",
        "set_config('role', 'none', false) is not null",
    ],
)
def test_what_the_server_brings_may_be_more_than_its_owner_may(
    connection: Connection, expression: str
) -> None:
    run_as(connection, ROLE, f"create table public.t (a int check ({expression}))")

    assert list(guards(connection)) == [("public", "t")]


def test_what_rests_is_as_it_was_afterwards(connection: Connection) -> None:
    state = "select tgname::text, tgenabled::text from pg_trigger order by 1"
    connection.execute("create table public.t (a int) partition by list (a)")
    connection.execute("create table public.leaf partition of public.t default")
    connection.execute(
        "create function public.f() returns trigger language plpgsql as 'begin return null; end'"
    )
    for name, how in (("a", "enable always"), ("b", "enable replica"), ("c", "disable")):
        connection.execute(
            f"create trigger {name} after insert on public.t for each row"
            " execute function public.f()"
        )
        connection.execute(f"alter table public.t {how} trigger {name}")
    before = connection.execute(state).fetchall()
    hush = Hush(connection)

    hush.begin()
    assert {enabled for _, enabled in connection.execute(state)} == {"D"}
    hush.begin()
    hush.end()
    assert connection.execute(state).fetchall() == before
