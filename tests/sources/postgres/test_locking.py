"""What a snapshot sees cannot be taken away while it is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from kryonix_backup.errors import SourceUnavailable
from kryonix_backup.sources.postgres import locking
from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.contents import tables_of
from kryonix_backup.sources.postgres.exported import exported
from kryonix_backup.sources.postgres.locking import SchemaChanged, hold
from kryonix_backup.sources.postgres.session import Connection
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored, tenant_of

pytestmark = pytest.mark.service


class Seen:
    """A snapshot of a database, and another session that changes it."""

    def __init__(self, dumping: Connection, other: psycopg.Connection[tuple[object, ...]]) -> None:
        self.dumping = dumping
        self.other = other
        self.tables = tables_of(dumping)

    def hold(self) -> None:
        """Hold its tables."""
        hold(self.dumping, self.tables)

    def rows(self) -> object:
        """How many there are of one table."""
        return self.dumping.execute('select count(*) from public."a table"').fetchone()


@pytest.fixture
def seen(postgres: PostgresServer) -> Iterator[Seen]:
    database = new_database(postgres)
    with postgres.connect(database) as other:
        other.execute('create table "a table" (a int); create table b (b int)')
        other.execute('insert into "a table" values (1), (2)')
        with exported(Address.parse(postgres.url(database))) as (connection, _):
            yield Seen(connection, other)


@pytest.mark.parametrize(
    "statement",
    ['truncate "a table"', "drop table b", 'alter table "a table" alter a type text',
     "alter table b rename to c", 'vacuum full "a table"'],
)  # fmt: skip
def test_what_is_held_stays_as_it_is(seen: Seen, statement: str) -> None:
    seen.hold()
    seen.other.execute("set lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        seen.other.execute(statement.encode())

    assert seen.rows() == (2,)


@pytest.mark.parametrize(
    "statement",
    ['truncate "a table"', "drop table b", 'alter table "a table" alter a type text',
     "alter table b rename to c", "drop schema public cascade"],
)  # fmt: skip
def test_a_change_after_the_snapshot_is_told(seen: Seen, statement: str) -> None:
    seen.other.execute(statement.encode())

    with pytest.raises(SchemaChanged, match="meanwhile"):
        seen.hold()
    seen.other.execute("set lock_timeout = '100ms'")
    seen.other.execute("create schema if not exists public")
    seen.other.execute("drop table if exists b")  # nothing is held any more


def test_who_holds_a_table_for_long_is_not_waited_for_until_he_is_the_victim(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_TRIES", 2)
    with seen.other.transaction():
        seen.other.execute("lock table b in access exclusive mode")
        with pytest.raises(SourceUnavailable, match="locked by a long transaction"):
            seen.hold()
        # What we held of the other table was given up.
        seen.other.execute("set local lock_timeout = '100ms'")
        seen.other.execute('lock table "a table" in access exclusive mode')
    seen.hold()


def test_a_database_whose_tables_come_and_go_is_backed_up_whole(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("create table kept (a int); insert into kept values (1)")
    client = tenant_of(postgres.url(database), tmp_path)
    over = threading.Event()

    def change() -> None:
        with postgres.connect(database) as connection:
            while not over.is_set():
                connection.execute("create table passing (a int)")
                connection.execute("truncate kept")
                connection.execute("insert into kept values (1)")
                connection.execute("drop table passing")
                over.wait(0.05)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(5):
            client.backup()
    finally:
        over.set()
        thread.join()
    restored(client, postgres.url(f"{database}_then"))
    assert rich.digest(postgres, f"{database}_then")["public.kept"][0] in (0, 1)
