"""
Session fixtures of real PostgreSQL servers; a ``conftest.py`` imports those it wants.

``from tests.services.postgres import postgres  # noqa: F401``
"""

from __future__ import annotations

import itertools

import pytest

from kryonix_backup.sources.postgres.server.turn import holder
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

VERSIONS = versions()
assert len(VERSIONS) > 1, "script/test installs a second PostgreSQL beside the wheel's"

_numbers = itertools.count()


_running: dict[int, PostgresServer] = {}


@pytest.fixture(scope="session", params=VERSIONS, ids=lambda version: f"pg{version}")
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """
    A cluster of each version; who stops or kills a server starts one of its own.

    Both run until the end once they are started: a fixture of their own would end with each
    change from one version to the other.
    """
    version: int = request.param
    if version not in _running:
        server = _running[version] = start_postgres(version)
        request.session.config.add_cleanup(server.remove)
    return _running[version]


def new_database(server: PostgresServer, start: str = "tenant") -> str:
    """An empty database that no other test uses; its name."""
    name = f"{start}_{next(_numbers)}"
    with server.connect() as connection:
        connection.execute(f'create database "{name}"')
    return name


def is_followed(server: PostgresServer, database: str) -> bool:
    """Whether somebody follows the log of a database, which holds a lock while it does."""
    with server.connect(database) as connection:
        return holder(connection) is not None
