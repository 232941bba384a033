"""A beat tells the log what the sequences are at, or that they cannot be read."""

from __future__ import annotations

from threading import Thread

import pytest

from kryonix_backup.errors import SourceDenied
from kryonix_backup.sources.postgres.preparation.beating import beat
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.exported import lsn_of
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

pytestmark = pytest.mark.service


def test_a_beat_is_in_the_log_where_it_says(postgres: PostgresServer) -> None:
    address = Address.parse(postgres.url(new_database(postgres)))
    with connected(address) as connection:
        row = connection.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        place = beat(connection)
        after = connection.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert after is not None

    assert lsn_of(row[0]) < place <= lsn_of(after[0])


def test_who_may_not_read_a_sequence_is_told_what_to_grant(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("drop role if exists deaf")
        connection.execute("create role deaf login")
        connection.execute("create sequence s; revoke all on sequence s from public")
    with (
        connected(Address.parse(postgres.url(database, user="deaf"))) as connection,
        pytest.raises(SourceDenied, match="user deaf may not read every sequence") as caught,
    ):
        beat(connection)

    assert 'grant pg_read_all_data to "deaf"' in caught.value.hint


def test_a_sequence_that_is_dropped_meanwhile_stops_no_beat(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    address = Address.parse(postgres.url(database))
    found: list[int] = []
    with postgres.connect(database) as tenant, connected(address) as connection:
        tenant.execute("create sequence gone; create sequence kept")
        pid = connection.info.backend_pid
        beating = Thread(target=lambda: found.append(beat(connection)))
        with tenant.transaction():
            tenant.execute("drop sequence gone")
            beating.start()
            while tenant.execute(_WAITS, (pid,)).fetchone() != ("Lock",):
                pass
        beating.join(30)

    assert len(found) == 1


_WAITS = "select wait_event_type from pg_stat_activity where pid = %s"
