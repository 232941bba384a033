"""Who follows a database's log holds a lock of the server's, which goes with its connection."""

from __future__ import annotations

import pytest

from kryonix_backup.errors import AlreadyRunning
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.sources.postgres.server.turn import holder, turn
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

pytestmark = pytest.mark.service


def test_a_turn_is_of_one_connection_and_of_one_database(postgres: PostgresServer) -> None:
    one, other = (Address.parse(postgres.url(new_database(postgres))) for _ in range(2))
    with connected(one) as second, connected(one) as first, connected(other) as elsewhere:
        assert holder(second) is None
        with turn(first, one), turn(elsewhere, other):
            pid = first.info.backend_pid
            with (
                pytest.raises(AlreadyRunning, match=rf"the log of .*, as process {pid} "),
                turn(second, one),
            ):
                pass
            assert holder(second) == pid
        with turn(second, one):
            assert holder(first) == second.info.backend_pid


def test_a_turn_ends_with_its_connection_too(postgres: PostgresServer) -> None:
    address = Address.parse(postgres.url(new_database(postgres)))
    with connected(address) as second:
        with connected(address) as first, turn(first, address):
            first.close()
        while holder(second) is not None:  # until the server notices
            pass
        with turn(second, address):
            pass


def test_a_machine_that_is_gone_without_a_word_does_not_keep_the_turn(
    postgres: PostgresServer,
) -> None:
    address = Address.parse(postgres.url(new_database(postgres)))
    with connected(address) as connection, turn(connection, address):
        settings = [
            connection.execute(f"select current_setting('{name}')".encode()).fetchone()
            for name in ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")
        ]
    assert settings == [("60",), ("15",), ("4",)]
