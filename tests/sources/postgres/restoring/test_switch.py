from __future__ import annotations

import pytest

from kryonix_backup.errors import RestoreError, WouldOverwrite
from kryonix_backup.model import RestoreId
from kryonix_backup.sources.postgres.restoring.switch import Switch
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

pytestmark = pytest.mark.service

RESTORE = RestoreId("20261126t081500z-0123456789abcdef")


class Pair:
    """A database that is there, and one that was loaded for it; each says who it is."""

    def __init__(self, server: PostgresServer, *, there: bool = True) -> None:
        self.server = server
        self.database = new_database(server)
        self.switch = Switch(Address.parse(server.url(self.database)), RESTORE)
        self._say(self.database, "old")
        with self.switch.connected() as connection:
            connection.execute(f'create database "{self.switch.new}"')
            self.switch.mark(connection, "loaded", "what is said\nin two lines", 7)
            if not there:
                connection.execute(f'drop database "{self.database}"')
        self._say(self.switch.new, "new")

    def _say(self, database: str, who: str) -> None:
        with self.server.connect(database) as connection:
            connection.execute(f"create table is_{who} (a int)")

    def who(self) -> str | None:
        """Which of the two has the name now, and lets people in."""
        with self.switch.connected() as connection:
            if not self.switch.is_there(connection, self.database):
                return None
        with self.server.connect(self.database) as connection:
            found = connection.execute(
                "select relname from pg_class where relname in ('is_old', 'is_new')"
            ).fetchone()
        return None if found is None else str(found[0])[3:]

    def said(self) -> tuple[object, ...] | None:
        """What is said of the one with the name, and how many it lets in at once."""
        with self.switch.connected() as connection:
            return connection.execute(
                "select shobj_description(oid, 'pg_database'), datconnlimit from pg_database"
                " where datname = %s",
                (self.database,),
            ).fetchone()


def test_names_are_changed_and_changed_back(postgres: PostgresServer) -> None:
    pair = Pair(postgres)

    pair.switch.commit(overwrite=True)
    pair.switch.commit(overwrite=True)
    assert pair.who() == "new"
    pair.switch.roll_back()
    assert pair.who() == "old"
    pair.switch.roll_back()
    assert pair.who() == "old"
    with pair.switch.connected() as connection:
        assert not pair.switch.is_there(connection, pair.switch.new)
        assert not pair.switch.is_there(connection, pair.switch.before)


def test_after_the_end_only_the_new_one_is_there(postgres: PostgresServer) -> None:
    pair = Pair(postgres)
    pair.switch.commit(overwrite=True)

    pair.switch.finish()
    pair.switch.finish()

    assert pair.who() == "new"
    with pair.switch.connected() as connection:
        assert not pair.switch.is_there(connection, pair.switch.before)
    assert pair.said() == ("what is said\nin two lines", 7)


def test_a_switch_that_stopped_just_before_its_end_is_brought_there(
    postgres: PostgresServer,
) -> None:
    pair = Pair(postgres)
    with pair.switch.connected() as connection:
        connection.execute(f'alter database "{pair.database}" rename to "{pair.switch.before}"')
        connection.execute(f'alter database "{pair.switch.new}" rename to "{pair.database}"')

    pair.switch.commit(overwrite=True)

    assert pair.said() == ("what is said\nin two lines", 7)


def test_a_database_that_subscribes_to_another_server_is_dropped_too(
    postgres: PostgresServer,
) -> None:
    pair = Pair(postgres)
    with postgres.connect(pair.database) as connection:
        connection.execute(
            "create subscription \"odd sub\" connection 'dbname=nowhere' publication p"
            " with (connect = false)"
        )
    pair.switch.commit(overwrite=True)

    pair.switch.finish()

    with pair.switch.connected() as connection:
        assert not pair.switch.is_there(connection, pair.switch.before)


def test_where_nothing_was_there_rolling_back_leaves_nothing(postgres: PostgresServer) -> None:
    pair = Pair(postgres, there=False)
    pair.switch.roll_back()
    assert pair.who() is None

    pair = Pair(postgres, there=False)
    pair.switch.commit(overwrite=False)
    assert pair.who() == "new"


def test_a_database_that_came_meanwhile_is_not_replaced(postgres: PostgresServer) -> None:
    pair = Pair(postgres)

    with pytest.raises(WouldOverwrite, match="was made while"):
        pair.switch.commit(overwrite=False)

    assert pair.who() == "old"


def test_a_switch_that_stopped_with_the_doors_shut_goes_on_or_back(
    postgres: PostgresServer,
) -> None:
    for on in (True, False):
        pair = Pair(postgres)
        with pair.switch.connected() as connection:
            connection.execute(f'alter database "{pair.database}" allow_connections false')
        if on:
            pair.switch.commit(overwrite=True)
        else:
            pair.switch.roll_back()

        assert pair.who() == ("new" if on else "old")


def test_nothing_loaded_is_said(postgres: PostgresServer) -> None:
    switch = Switch(Address.parse(postgres.url("no_such_database")), RESTORE)

    with pytest.raises(RestoreError, match="nothing was loaded"):
        switch.commit(overwrite=True)
    switch.roll_back()
    with switch.connected() as connection:
        assert switch.state(connection) is None
