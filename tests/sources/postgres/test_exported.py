from __future__ import annotations

import pytest

from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.exported import exported
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

pytestmark = pytest.mark.service


def test_everybody_who_looks_sees_one_moment(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    address = Address.parse(postgres.url(database))
    with postgres.connect(database) as writing:
        writing.execute("create table t (a int)")
        writing.execute("insert into t values (1)")
        with exported(address) as (connection, snapshot):
            writing.execute("insert into t values (2)")
            seen = connection.execute("select a from public.t").fetchall()
            other = writing.execute("begin isolation level repeatable read")
            other.execute(f"set transaction snapshot '{snapshot.name}'")
            also = other.execute("select a from t").fetchall()
            other.execute("commit")

    assert seen == also == [(1,)]
    assert snapshot.version // 10_000 == postgres.major


def test_nothing_is_left_in_the_server_afterwards(postgres: PostgresServer) -> None:
    database = new_database(postgres)

    with exported(Address.parse(postgres.url(database))):
        pass

    postgres.run("dropdb", database)  # which a session that is still there would prevent
