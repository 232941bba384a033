"""
Session fixtures of real PostgreSQL servers; a ``conftest.py`` imports those it wants.

``from tests.services.postgres import postgres  # noqa: F401``
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

VERSIONS = versions()
assert len(VERSIONS) > 1, "script/test installs a second PostgreSQL beside the wheel's"

_numbers = itertools.count()


@pytest.fixture(scope="session", params=VERSIONS, ids=lambda version: f"pg{version}")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A cluster of each version; who stops or kills a server starts one of its own."""
    with start_postgres(request.param) as server:
        yield server


def new_database(server: PostgresServer, start: str = "tenant") -> str:
    """An empty database that no other test uses; its name."""
    name = f"{start}_{next(_numbers)}"
    with server.connect() as connection:
        connection.execute(f'create database "{name}"')
    return name
