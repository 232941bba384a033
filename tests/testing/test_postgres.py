from __future__ import annotations

import signal

import psycopg
import pytest

from kryonix_backup.testing.postgres import PostgresServer, programs_of, start_postgres, versions
from tests.services.postgres import postgres

__all__ = ["postgres"]

pytestmark = pytest.mark.service


def test_a_server_is_of_its_version_and_logical(postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        version = connection.execute("show server_version_num").fetchone()
    assert version is not None
    assert int(str(version[0])) // 10_000 == postgres.major
    assert postgres.run("psql", "-Atc", "show wal_level") == "logical\n"


def test_what_a_program_refuses_is_raised(postgres: PostgresServer) -> None:
    with pytest.raises(RuntimeError, match="no_such_database"):
        postgres.run("pg_dump", "no_such_database")


def test_a_crash_and_a_new_start_keep_what_was_committed_and_the_end_leaves_nothing() -> None:
    with start_postgres(max(versions())) as server:
        with server.connect() as connection:
            connection.execute("create table t as select 1 as a")
            connection.execute("checkpoint")
        server.stop(signal.SIGQUIT)
        with pytest.raises(psycopg.OperationalError):
            server.connect()
        server.start()
        with server.connect() as connection:
            assert connection.execute("select a from t").fetchone() == (1,)
        folder = server.folder

    assert not folder.exists()


def test_a_version_that_is_not_installed_is_told() -> None:
    with pytest.raises(FileNotFoundError, match="script/test"):
        programs_of(99)
