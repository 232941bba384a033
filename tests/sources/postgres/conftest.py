from __future__ import annotations

from collections.abc import Iterator

import pytest

from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database, postgres
from tests.sources.postgres.prepared import Tenant

__all__ = ["postgres"]


@pytest.fixture
def tenant(postgres: PostgresServer) -> Iterator[Tenant]:
    """A database that is prepared and released by tests."""
    made = Tenant(postgres, new_database(postgres))
    yield made
    made.drop_slots()
