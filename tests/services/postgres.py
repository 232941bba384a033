"""
Session fixtures of real PostgreSQL servers; a ``conftest.py`` imports those it wants.

``from tests.services.postgres import postgres  # noqa: F401``
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from psycopg import sql

from kryonix_backup.sources.postgres.server.turn import holder
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

VERSIONS = versions()
assert len(VERSIONS) > 1, "script/test installs a second PostgreSQL beside the wheel's"

_numbers = itertools.count()


_OURS = "select datname from pg_database where not datistemplate and datname <> 'postgres'"
_SUBSCRIPTIONS = """
select subname from pg_subscription s join pg_database d on d.oid = s.subdbid where datname = %s
"""
_SLOTS = """
select pg_drop_replication_slot(slot_name) from pg_replication_slots
where database = %s and not active
"""

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


_used: list[PostgresServer] = []
_kept: set[str] = set()


def new_database(server: PostgresServer, start: str = "tenant") -> str:
    """An empty database that no other test uses, and that goes with the test; its name."""
    name = f"{start}_{next(_numbers)}"
    with server.connect() as connection:
        connection.execute(f'create database "{name}"')
    if server not in _used:
        _used.append(server)
    return name


def keep_database(name: str) -> str:
    """It stays until its server goes."""
    _kept.add(name)
    return name


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """
    Every database of a server on which a test made one is gone after it, but those that are kept.

    Hundreds of them would be gigabytes of small files, which take minutes to write and to remove.
    """
    yield
    while _used:
        server = _used.pop()
        if server.process is not None and server.process.poll() is None:
            _sweep(server)


def _sweep(server: PostgresServer) -> None:
    with server.connect() as connection:
        for (found,) in connection.execute(_OURS).fetchall():
            name = str(found)
            if name not in _kept:
                _kept.add(name)  # one that does not go fails one test
                if connection.execute(_SUBSCRIPTIONS, (name,)).fetchall():
                    _unsubscribe(server, name)
                connection.execute(_SLOTS, (name,))
                connection.execute(
                    sql.SQL("drop database {} with (force)").format(sql.Identifier(name))
                )
                _kept.remove(name)


def _unsubscribe(server: PostgresServer, database: str) -> None:
    with server.connect(database) as connection:
        for (name,) in connection.execute(_SUBSCRIPTIONS, (database,)).fetchall():
            for change in ("alter subscription {} disable",
                           "alter subscription {} set (slot_name = none)",
                           "drop subscription {}"):  # fmt: skip
                connection.execute(sql.SQL(change).format(sql.Identifier(str(name))))


def is_followed(server: PostgresServer, database: str) -> bool:
    """Whether somebody follows the log of a database, which holds a lock while it does."""
    with server.connect(database) as connection:
        return holder(connection) is not None
