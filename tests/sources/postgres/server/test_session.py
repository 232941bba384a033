from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from kryonix_backup.errors import (
    AlreadyRunning,
    KryonixError,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
    TargetFull,
)
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import SETTINGS, connected, conninfo, told
from kryonix_backup.testing.postgres import PostgresServer, start_postgres
from tests.services.postgres import new_database

pytestmark = pytest.mark.service

ADDRESS = Address.parse("postgresql://postgres@127.0.0.1/acme")


def test_text_means_the_same_whatever_the_database_is_set_to(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect() as connection:
        for setting in ("timezone = 'Asia/Tokyo'", "datestyle = 'German'", "bytea_output = escape"):
            connection.execute(f'alter database "{database}" set {setting}'.encode())

    with connected(Address.parse(postgres.url(database))) as connection:
        found = {
            name: connection.execute("select current_setting(%s)", (name,)).fetchone()
            for name in SETTINGS
        }

    assert found["TimeZone"] == ("UTC",)
    assert found["bytea_output"] == ("hex",)
    assert found["DateStyle"] == ("ISO, YMD",)


@pytest.mark.parametrize(
    ("sqlstate", "ours"),
    [
        ("42501", SourceDenied), ("28P01", SourceDenied), ("28000", SourceDenied),
        ("3D000", SourceMissing), ("53100", TargetFull), ("55006", AlreadyRunning),
        ("57P01", SourceUnavailable), ("57P03", SourceUnavailable), ("53300", SourceUnavailable),
        ("08006", SourceUnavailable), ("40P01", SourceUnavailable), ("57014", SourceUnavailable),
        ("42601", SourceError),
    ],
)  # fmt: skip
def test_an_error_of_the_server_means_one_of_ours(
    postgres: PostgresServer, sqlstate: str, ours: type[KryonixError]
) -> None:
    raising = f"do $$ begin raise exception 'so it is' using errcode = '{sqlstate}'; end $$"
    with postgres.connect() as connection, pytest.raises(psycopg.Error) as raised:
        connection.execute(raising.encode())

    error = told(raised.value, ADDRESS)

    assert type(error) is ours
    assert error.message == f"{ADDRESS.shown}: so it is"


def test_a_wrong_password_is_denied_and_the_passfile_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with start_postgres(18) as server:
        with server.connect() as connection:
            connection.execute("create role guarded login password 'the-right-one'")
        rules = server.data / "pg_hba.conf"
        rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        server.run("psql", "-c", "select pg_reload_conf()")
        address = Address.parse(server.url(user="guarded"))
        passfile = tmp_path / "pgpass"
        monkeypatch.setenv("PGPASSFILE", str(passfile))

        for password in ("the-wrong-one", None, "the-right-one"):
            passfile.unlink(missing_ok=True)
            if password is not None:
                passfile.touch(mode=0o600)
                passfile.write_text(f"127.0.0.1:*:*:guarded:{password}\n")
            if password == "the-right-one":
                with connected(address) as connection:
                    assert connection.execute("select 1").fetchone() == (1,)
            else:
                with pytest.raises(SourceDenied, match=r"password") as refused:
                    connected(address).__enter__()
                assert "the-wrong-one" not in str(refused.value)
        assert "the-right-one" not in conninfo(address)
