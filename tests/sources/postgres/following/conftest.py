"""A database whose log is followed, and whose slot goes with the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres.log import Followed


@pytest.fixture
def followed(postgres: PostgresServer) -> Iterator[Followed]:
    made = Followed(postgres, new_database(postgres))
    yield made
    made.run(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
        f" where database = '{made.database}' and not active"
    )
