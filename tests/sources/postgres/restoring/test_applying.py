"""A fold is applied in bulk, and only to a database that it fits."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from kryonix_backup.errors import RestoreError, ValidationFailed
from kryonix_backup.sources.postgres.decoding.latest import Latest
from kryonix_backup.sources.postgres.decoding.pgoutput import UNCHANGED, Relation
from kryonix_backup.sources.postgres.restoring.applying import Applier, apply_all, bulk_of
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection, connected
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

pytestmark = pytest.mark.service

_OPTIONS = "-c session_replication_role=replica -c search_path=public"
KEYED = Relation(1, "public", "Keyed one", "d", ("id", "a b", "long"), (0,))
LOOSE = Relation(2, "public", "loose", "f", ("x", "y"), ())
NOTHING = Relation(3, "public", "nothing", "f", (), ())


class Database:
    """A database with a table of each kind."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.run('create table "Keyed one" (id int primary key, "a b" text, long text)')
        self.run("create table loose (x float8, y text)", "create table nothing ()")

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last one."""
        for statement in statements:
            cursor = self.connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []

    def keyed(self) -> list[tuple[Any, ...]]:
        """The rows of the table that has a key."""
        return self.run('select * from "Keyed one" order by id')


def _apply(database: Database, *changes: Latest) -> None:
    apply_all(database.connection, [bulk_of(each) for each in changes])


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """With its tables empty."""
    address = Address.parse(postgres.url(new_database(postgres)))
    with connected(address, options=_OPTIONS) as connection:
        yield Database(connection)


def test_rows_with_a_key_are_deleted_and_written_as_they_are_now(database: Database) -> None:
    database.run(
        """insert into "Keyed one" select g, 'old', 'long ' || g from generate_series(1, 5) g"""
    )
    net = Latest(KEYED)
    net.net.delete((b"1", None, None))
    net.net.update(None, (b"2", b"tab\t back\\slash\nline\r", None))
    net.net.update(None, (b"3", b"\\N", UNCHANGED))
    net.net.update((b"4", None, None), (b"40", b"moved", UNCHANGED))
    net.net.insert((b"6", None, b""))
    _apply(database, net)

    assert database.keyed() == [
        (2, "tab\t back\\slash\nline\r", None),
        (3, "\\N", "long 3"),
        (5, "old", "long 5"),
        (6, None, ""),
        (40, "moved", "long 4"),
    ]


def test_rows_without_a_key_are_counted(database: Database) -> None:
    database.run("insert into loose select 0.1, null from generate_series(1, 5)")
    database.run("insert into loose values ('nan', 'n'), ('-0', '')")
    net = Latest(LOOSE)
    for _ in range(3):
        net.net.delete((b"0.1", None))
    net.net.delete((b"NaN", b"n"))
    net.net.insert((b"-0", b""))
    _apply(database, net)

    rows = database.run("select x::text, y, count(*) from loose group by 1, 2 order by 1")
    assert rows == [("-0", "", 2), ("0.1", None, 2)]


def test_values_are_compared_as_the_log_writes_them(database: Database) -> None:
    """A cast to text writes some of them in another way, and a tenant's in any."""
    database.run(
        "create type pair as (a int, b text)",
        "create function shown(pair) returns text language sql as $$ select 'x' $$",
        "create cast (pair as text) with function shown(pair)",
        """create table odd (a boolean, b char(5), c inet, d "char", e pair, f char(3)[])""",
        "insert into odd values (true, 'ab', '1.2.3.4', 'c', (1, 'x y'), '{a}')",
        "insert into odd select * from odd",
    )
    net = Latest(Relation(5, "public", "odd", "f", ("a", "b", "c", "d", "e", "f"), ()))
    net.net.delete((b"t", b"ab   ", b"1.2.3.4", b"c", b'(1,"x y")', b'{"a  "}'))
    _apply(database, net)

    assert database.run("select count(*) from odd") == [(1,)]


def test_rows_without_columns_are_counted_too(database: Database) -> None:
    database.run(*["insert into nothing default values"] * 3)
    net = Latest(NOTHING)
    net.net.delete(())
    _apply(database, net)
    assert database.run("select count(*) from nothing") == [(2,)]

    net = Latest(NOTHING)
    net.net.insert(())
    _apply(database, net)
    assert database.run("select count(*) from nothing") == [(3,)]


def test_tables_that_refer_to_each_other_are_emptied_together(database: Database) -> None:
    database.run(
        """create table child (id int primary key references "Keyed one")""",
        """insert into "Keyed one" values (1, 'a', 'b')""",
        "insert into child values (1)",
    )
    parent, child = Latest(KEYED), Latest(Relation(4, "public", "child", "d", ("id",), (0,)))
    parent.net.truncate()
    child.net.truncate()
    parent.net.insert((b"9", b"new", None))
    _apply(database, parent, child)

    assert database.keyed() == [(9, "new", None)]
    assert database.run("select * from child") == []


@pytest.mark.parametrize("kind", ["delete", "update", "hole", "loose", "nothing"])
def test_a_log_that_does_not_fit_is_refused_and_changes_nothing(
    database: Database, kind: str
) -> None:
    database.run("""insert into "Keyed one" values (1, 'a', 'b')""", "insert into loose values (1)")
    keyed, other = Latest(KEYED), Latest(NOTHING if kind == "nothing" else LOOSE)
    keyed.net.insert((b"2", None, None))
    if kind == "delete":
        keyed.net.delete((b"7", None, None))
    elif kind == "update":
        keyed.net.update(None, (b"7", b"x", b"y"))
    elif kind == "hole":
        keyed.net.update(None, (b"7", b"x", UNCHANGED))
    elif kind == "loose":
        other.net.delete((b"1", b"not there"))
    else:
        other.net.delete(())

    with pytest.raises(ValidationFailed, match="held 0 of the 1 rows"):
        _apply(database, keyed, other)
    assert database.keyed() == [(1, "a", "b")]


def test_what_is_added_is_applied_in_order_once_it_may_be(database: Database) -> None:
    begun, may = Event(), Event()

    def ready() -> None:
        begun.set()
        assert may.wait(10)

    first, second = Latest(KEYED), Latest(KEYED)
    first.net.insert((b"1", b"a", None))
    second.net.update(None, (b"1", b"b", None))
    with Applier(database.connection, ready) as applier:
        applier.add([bulk_of(first)])
        assert begun.wait(10)
        assert database.keyed() == []
        may.set()
        applier.add([bulk_of(second)])
        applier.settle()

        assert database.keyed() == [(1, "b", None)]


def test_what_cannot_be_applied_is_raised_by_the_next_call(database: Database) -> None:
    wrong = Latest(KEYED)
    wrong.net.delete((b"7", None, None))
    with Applier(database.connection, lambda: None) as applier:
        applier.add([bulk_of(wrong)])
        with pytest.raises(ValidationFailed, match="held 0 of the 1 rows"):
            applier.wait()


def test_what_never_becomes_ready_is_not_applied(database: Database) -> None:
    def ready() -> None:
        raise RestoreError("the rows did not come")

    changes = Latest(KEYED)
    changes.net.insert((b"1", b"a", None))
    with Applier(database.connection, ready) as applier:
        applier.add([bulk_of(changes)])
        with pytest.raises(RestoreError, match="did not come"):
            applier.settle()
    assert database.keyed() == []
