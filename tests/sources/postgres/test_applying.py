"""A fold is applied in bulk, and only to a database that it fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kryonix_backup.errors import ValidationFailed
from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.applying import apply_all
from kryonix_backup.sources.postgres.net import TableNet
from kryonix_backup.sources.postgres.pgoutput import UNCHANGED, Relation
from kryonix_backup.sources.postgres.session import Connection, connected
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

pytestmark = pytest.mark.service

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


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """With its tables empty."""
    address = Address.parse(postgres.url(new_database(postgres)))
    with connected(address, options="-c session_replication_role=replica") as connection:
        yield Database(connection)


def test_rows_with_a_key_are_deleted_and_written_as_they_are_now(database: Database) -> None:
    database.run(
        """insert into "Keyed one" select g, 'old', 'long ' || g from generate_series(1, 5) g"""
    )
    net = TableNet(KEYED)
    net.delete((b"1", None, None))
    net.update(None, (b"2", b"tab\t back\\slash\nline\r", None))
    net.update(None, (b"3", b"\\N", UNCHANGED))
    net.update((b"4", None, None), (b"40", b"moved", UNCHANGED))
    net.insert((b"6", None, b""))
    apply_all(database.connection, [net])

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
    net = TableNet(LOOSE)
    for _ in range(3):
        net.delete((b"0.1", None))
    net.delete((b"NaN", b"n"))
    net.insert((b"-0", b""))
    apply_all(database.connection, [net])

    rows = database.run("select x::text, y, count(*) from loose group by 1, 2 order by 1")
    assert rows == [("-0", "", 2), ("0.1", None, 2)]


def test_rows_without_columns_are_counted_too(database: Database) -> None:
    database.run(*["insert into nothing default values"] * 3)
    net = TableNet(NOTHING)
    net.delete(())
    apply_all(database.connection, [net])
    assert database.run("select count(*) from nothing") == [(2,)]

    net = TableNet(NOTHING)
    net.insert(())
    apply_all(database.connection, [net])
    assert database.run("select count(*) from nothing") == [(3,)]


def test_tables_that_refer_to_each_other_are_emptied_together(database: Database) -> None:
    database.run(
        """create table child (id int primary key references "Keyed one")""",
        """insert into "Keyed one" values (1, 'a', 'b')""",
        "insert into child values (1)",
    )
    parent, child = TableNet(KEYED), TableNet(Relation(4, "public", "child", "d", ("id",), (0,)))
    parent.truncate()
    child.truncate()
    parent.insert((b"9", b"new", None))
    apply_all(database.connection, [parent, child])

    assert database.keyed() == [(9, "new", None)]
    assert database.run("select * from child") == []


@pytest.mark.parametrize("kind", ["delete", "update", "hole", "loose", "nothing"])
def test_a_log_that_does_not_fit_is_refused_and_changes_nothing(
    database: Database, kind: str
) -> None:
    database.run("""insert into "Keyed one" values (1, 'a', 'b')""", "insert into loose values (1)")
    keyed, other = TableNet(KEYED), TableNet(NOTHING if kind == "nothing" else LOOSE)
    keyed.insert((b"2", None, None))
    if kind == "delete":
        keyed.delete((b"7", None, None))
    elif kind == "update":
        keyed.update(None, (b"7", b"x", b"y"))
    elif kind == "hole":
        keyed.update(None, (b"7", b"x", UNCHANGED))
    elif kind == "loose":
        other.delete((b"1", b"not there"))
    else:
        other.delete(())

    with pytest.raises(ValidationFailed, match="held 0 of the 1 rows"):
        apply_all(database.connection, [keyed, other])
    assert database.keyed() == [(1, "a", "b")]
