"""Whoever reads a server's stream is heard of, and comes to an end in order."""

from __future__ import annotations

import time

import psycopg
import pytest

from kryonix_backup.clock import SystemClock
from kryonix_backup.sources.postgres.following import wire
from kryonix_backup.sources.postgres.following.continuity import command
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import PostgresServer

pytestmark = pytest.mark.service


def test_the_server_hears_of_us_while_nothing_happens(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = Address.parse(postgres.url())
    monkeypatch.setattr(wire, "_STATUS_S", 0.1)
    with postgres.connect() as ordinary, connected(address, replication="database") as connection:
        row = ordinary.execute("select pg_current_wal_lsn()").fetchone()
        assert row is not None
        command(connection, "SET wal_sender_timeout = '1s'")
        reader = wire.Wire(connection, address, SystemClock())
        reader.start(f"START_REPLICATION PHYSICAL {row[0]}")
        ends = time.monotonic() + 1.5
        with reader.ended():
            while time.monotonic() < ends:
                reader.read(lambda _data: False)


def test_a_stream_that_does_not_begin_raises_what_the_server_said(
    postgres: PostgresServer,
) -> None:
    address = Address.parse(postgres.url())
    with connected(address, replication="true") as connection:
        reader = wire.Wire(connection, address, SystemClock())
        with pytest.raises(psycopg.errors.UndefinedObject):
            reader.start('START_REPLICATION SLOT "none" PHYSICAL 0/1000000')


def test_messages_come_until_something_is_to_be_done(postgres: PostgresServer) -> None:
    address = Address.parse(postgres.url())
    seen: list[int] = []

    def add(data: memoryview) -> bool:
        seen.append(len(data) - wire.DATA_BYTES)
        return True

    with postgres.connect() as ordinary, connected(address, replication="true") as connection:
        row = ordinary.execute("select pg_current_wal_lsn()").fetchone()
        assert row is not None
        reader = wire.Wire(connection, address, SystemClock())
        reader.start(f"START_REPLICATION PHYSICAL {row[0]}")
        ordinary.execute("select pg_logical_emit_message(false, 'x', repeat('y', 1000))")
        with reader.ended():
            while sum(seen) < 1000:
                reader.read(add)
        ended = connection.pgconn.transaction_status

    assert ended == psycopg.pq.TransactionStatus.IDLE
