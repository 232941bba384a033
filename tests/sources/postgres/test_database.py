"""A database is dumped whole, in one moment, and what has not changed is not stored again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.errors import (
    ConfigError,
    SourceDenied,
    SourceMissing,
    SourceUnavailable,
    SourceUnprepared,
)
from kryonix_backup.model import SourceName
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.postgres.database import PostgresSource, _ranges
from kryonix_backup.sources.postgres.dumping.contents import Table
from kryonix_backup.sources.source import Item
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored, tenant_of

pytestmark = pytest.mark.service


def test_everything_in_a_database_comes_back(postgres: PostgresServer, tmp_path: Path) -> None:
    database = new_database(postgres)
    rich.fill(postgres, database)
    client = tenant_of(postgres.url(database), tmp_path)

    report = client.backup()
    back = restored(client, postgres.url(f"{database}_back"))

    assert (report.status, back.status) == ("complete", "complete"), back.to_plain()["problems"]
    assert rich.digest(postgres, f"{database}_back") == rich.digest(postgres, database)
    assert rich.schema(postgres, f"{database}_back") == rich.schema(postgres, database)
    assert rich.about(postgres, f"{database}_back") == rich.about(postgres, database)
    assert postgres.run("pg_amcheck", "--install-missing", f"{database}_back") == ""


def _items(server: PostgresServer, database: str) -> Iterator[Item]:
    source = PostgresSource(SourceSettings(SourceName("db"), server.url(database)))
    (part,) = source.parts()
    return (item for item in source.dump(part, None).items if isinstance(item, Item))


@pytest.mark.parametrize(
    "statement",
    ["truncate t", "alter table t alter a type text", "drop table t", "vacuum full t",
     "alter table t rename to was; create table t (a int)", "alter table t set schema other"],
)  # fmt: skip
def test_a_table_that_is_emptied_while_it_is_read_fails_the_backup(
    postgres: PostgresServer, statement: str
) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("create table t (a int); insert into t values (1); create table u ()")
        connection.execute("create schema other")
        items = _items(postgres, database)
        next(items)
        connection.execute(
            "create table v (a int); drop table v; analyze t; insert into t values (2)"
        )
        connection.execute(statement.encode())

        with pytest.raises(SourceUnavailable, match=r"public\.t was emptied, rewritten, renamed"):
            list(items)


def test_a_schema_of_the_tenants_with_our_name_is_not_left_out_unsaid(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("create schema kryonix create table theirs (a int)")
    client = tenant_of(postgres.url(database), tmp_path)

    with pytest.raises(SourceUnprepared, match="a schema kryonix that is not ours"):
        client.backup()


@pytest.mark.parametrize("statement", ["drop table t", "alter table t drop column a"])
def test_a_table_that_goes_before_it_is_read_fails_the_backup(
    postgres: PostgresServer, statement: str
) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("create table t (a int); insert into t values (1)")
        items = _items(postgres, database)
        item = next(items)
        connection.execute(statement.encode())

        assert item.open is not None
        with pytest.raises(SourceUnavailable, match="while the database"):
            item.open().readinto(memoryview(bytearray(100)))


def test_who_waits_for_a_table_that_was_read_holds_nothing_up(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection, postgres.connect(database) as waiting:
        connection.execute("create table t (a int); insert into t values (1); create table u ()")
        pid = waiting.info.backend_pid
        thread = threading.Thread(target=waiting.execute, args=("truncate t",))
        view = memoryview(bytearray(1 << 20))
        for item in _items(postgres, database):
            assert item.open is not None
            reader = item.open()
            while reader.readinto(view):
                pass
            reader.close()
            if thread.ident is None:
                thread.start()
                while connection.execute(_WAITS, (pid,)).fetchone() != ("Lock",):
                    pass
        thread.join(60)
        assert connection.execute("select count(*) from t").fetchone() == (0,)


_WAITS = "select wait_event_type from pg_stat_activity where pid = %s"


def test_a_dump_is_of_one_moment_whatever_is_written_meanwhile(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Money moves between two tables all the time; its sum is the same in every moment."""
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        for table in ("one", "two"):
            connection.execute(f"create table {table} (id int primary key, money int, pad text)")
            connection.execute(
                f"insert into {table} select g, 100, repeat(md5(g::text), 9)"
                " from generate_series(1, 20000) g"
            )
    ended = threading.Event()

    def move() -> None:
        with postgres.connect(database) as connection:
            number = 0
            while not ended.is_set():
                number = number % 20000 + 1
                with connection.transaction():
                    connection.execute("update one set money = money - 7 where id = %s", (number,))
                    connection.execute("update two set money = money + 7 where id = %s", (number,))

    thread = threading.Thread(target=move)
    thread.start()
    try:
        client = tenant_of(postgres.url(database), tmp_path)
        client.backup()
    finally:
        ended.set()
        thread.join()
    restored(client, postgres.url(f"{database}_back"))

    with postgres.connect(f"{database}_back") as connection:
        sums = connection.execute(
            "select (select sum(money) from one), (select sum(money) from two)"
        ).fetchone()
    assert sums is not None
    one, two = (int(str(each)) for each in sums)
    assert one + two == 4_000_000
    assert one < 2_000_000, "nothing was written meanwhile"


def test_what_has_not_changed_is_not_stored_again(postgres: PostgresServer, tmp_path: Path) -> None:
    database = new_database(postgres)
    rich.fill(postgres, database, rows=20_000)
    client = tenant_of(postgres.url(database), tmp_path)
    first = client.backup().to_plain()
    with postgres.connect(database) as connection:
        connection.execute("insert into crm.parent values (77)")

    second = client.backup().to_plain()

    assert second["bytes_total"] > 4_000_000
    assert second["bytes_new"] < 0.03 * first["bytes_new"]


def test_a_large_table_is_dumped_in_ranges_by_psql(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kryonix_backup.sources.postgres.database._RANGE_PAGES", 50)
    monkeypatch.setattr("kryonix_backup.sources.postgres.database._SMALL_PAGES", 4)
    database = new_database(postgres)
    rich.fill(postgres, database, rows=8000)
    client = tenant_of(postgres.url(database), tmp_path)

    client.backup()
    restored(client, postgres.url(f"{database}_back"))

    listed = [each.path for each in client.ls("latest", "db/data/crm.customer")]
    assert len(listed) > 3
    assert rich.digest(postgres, f"{database}_back") == rich.digest(postgres, database)


@pytest.mark.parametrize(
    ("mib", "ranges"), [(0, 1), (32, 1), (33, 2), (255, 8), (256, 8), (511, 16), (1660, 13),
                        (4096, 16), (100_000, 391)],
)  # fmt: skip
def test_tables_are_cut_so_that_readers_are_done_at_the_same_time(mib: int, ranges: int) -> None:
    pages = mib * 128
    table = Table(1, "public", "t", ("a",), pages, extension=False, where="")

    found = _ranges(table)

    assert len(found) == ranges
    assert [low for low, _ in found[1:]] == [high for _, high in found[:-1]]
    assert (found[0][0], found[-1][1]) == (0, 2**32 - 1)


def test_names_without_sense_are_refused(postgres: PostgresServer) -> None:
    with pytest.raises(ConfigError, match="include"):
        PostgresSource(
            SourceSettings(SourceName("db"), postgres.url("postgres"), include=("crm.*",))
        )
    with pytest.raises(SourceMissing, match="does not exist"):
        PostgresSource(SourceSettings(SourceName("db"), postgres.url("nobody"))).measure("database")
    with pytest.raises(SourceMissing, match="no part"):
        PostgresSource(SourceSettings(SourceName("db"), postgres.url())).dump("tree", None)
    with pytest.raises(SourceDenied, match="does not exist"):
        PostgresSource(SourceSettings(SourceName("db"), postgres.url(user="stranger"))).measure(
            "database"
        )


def test_a_user_who_may_not_read_everything_makes_no_smaller_backup(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = new_database(postgres)
    rich.fill(postgres, database)
    with postgres.connect(database) as connection:
        connection.execute("drop role if exists half")
        connection.execute("create role half login")
        connection.execute(f'grant connect on database "{database}" to half')
        connection.execute("grant usage on schema crm to half")
        connection.execute("grant select on all tables in schema crm to half")
    client = tenant_of(postgres.url(database, user="half"), tmp_path)

    with pytest.raises(SourceDenied, match=r"row-level security|permission denied"):
        client.backup()

    assert client.snapshots() == []


_MAPPING = (
    "create foreign data wrapper w; create server far foreign data wrapper w;"
    " create user mapping for public server far options (password 'p')"
)


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (
            "create subscription theirs connection 'dbname=x' publication p with (connect = false)",
            "subscription theirs",
        ),
        (_MAPPING, "user mapping of public for far"),
    ],
)  # fmt: skip
def test_what_pg_dump_leaves_out_unsaid_is_for_superusers(
    postgres: PostgresServer, tmp_path: Path, made: str, named: str
) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        for statement in made.split("; "):
            connection.execute(statement.encode())
        connection.execute("drop role if exists reader")
        connection.execute("create role reader login bypassrls; grant pg_read_all_data to reader")
    client = tenant_of(postgres.url(database, user="reader"), tmp_path)

    with pytest.raises(SourceDenied, match=f"may not read {named}"):
        client.backup()
    failed = {each.what for each in client.check_source("db") if not each.passed}
    assert "subscriptions and user mappings that may be read" in failed


def test_a_server_that_is_not_there_is_told_as_passing(tmp_path: Path) -> None:
    client = tenant_of("postgresql://postgres@127.0.0.1:1/acme", tmp_path)

    with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:1/acme"):
        client.backup()

    assert client.snapshots() == []


def test_a_session_that_is_ended_in_the_middle_is_told(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kryonix_backup.sources.postgres.database._SMALL_PAGES", 1)
    database = new_database(postgres)
    rich.fill(postgres, database, rows=30_000)
    items = _items(postgres, database)
    item = next(each for each in items if each.entry.path.startswith(b"data/crm.customer/"))
    assert item.open is not None
    reader = item.open()
    buffer = memoryview(bytearray(1000))
    assert reader.readinto(buffer) > 0

    with postgres.connect() as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = %s and query ilike 'copy%%'",
            (database,),
        )
    while reader.readinto(buffer):
        pass
    with pytest.raises(SourceUnavailable, match=r"data/crm.customer/00000: psql failed"):
        reader.close()
