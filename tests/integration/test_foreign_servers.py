"""Settings, encodings and versions that are not ours: what is in a database comes back the same."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kryonix_backup.errors import RestoreError, SourceUnprepared
from kryonix_backup.sources.postgres import database as database_module
from kryonix_backup.testing.postgres import PostgresServer, start_postgres
from tests.integration.followed import DB, Acme
from tests.services.postgres import VERSIONS
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored

pytestmark = pytest.mark.service

OLD, NEW = VERSIONS[0], VERSIONS[-1]
SETTINGS = {
    "timezone": "Asia/Kathmandu",
    "log_timezone": "America/New_York",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "xmloption": "document",
}
_TYPES = """
create table of_types (
    id int primary key, at timestamptz, here timestamp, day date, took interval, ratio float8,
    single float4, raw bytea, price money, span tstzrange, set_at timestamptz default '01/02/2026');
create table loose (at timestamptz, ratio float8, took interval)
"""
_ROW = """
values ({n}, '01/02/2026 03:04:05.123456', '28/02/2026 00:00', '31/12/1999',
    interval '-1 year -2 mons +3 days -04:05:06.789', 0.1::float8 + 0.2 * {n}, 1.1::float4 / 3,
    '\\\\000\\\\377\\\\047x'::bytea, 1234.56::float8::numeric::money, '[01/02/2026,02/02/2026)')
"""


def _digest(acme: Acme, name: str, server: PostgresServer | None = None) -> dict[str, Any]:
    """As a session of ours would read it: not one that rounds."""
    return dict(rich.digest(server or acme.server, name))


def test_whatever_a_server_is_set_to_a_moment_is_the_same(tmp_path: Path) -> None:
    with start_postgres(OLD, SETTINGS) as server:
        acme = Acme(server, tmp_path / "repository")
        acme.begin()
        columns = "(id, at, here, day, took, ratio, single, raw, price, span)"
        acme.run(*_TYPES.split(";\n"), f"insert into of_types {columns} {_ROW.format(n=1)}")
        acme.run("alter table loose replica identity full")
        acme.client.backup()
        acme.run(
            f"insert into of_types {columns} {_ROW.format(n=2)}",
            "insert into loose select at, ratio, took from of_types",
            "update of_types set at = '03/02/2026', took = '-1 day +2:00' where id = 1",
            "alter table of_types add column due timestamptz default '05/06/2026 07:08'",
            "delete from loose where ctid in (select ctid from loose limit 1)",
        )
        at, expected = acme.now(), _digest(acme, "acme")
        acme.run("update of_types set ratio = 0")
        acme.drain()

        assert at.utcoffset() == timedelta(hours=5, minutes=45)
        assert _digest(acme, acme.restored(at.astimezone(UTC))) == expected
        # The same moment, written another way, and on a server that is set otherwise.
        with start_postgres(NEW) as other:
            assert _digest(acme, acme.restored(at, server=other), other) == expected


def _made(server: PostgresServer, encoding: str) -> str:
    name = encoding.lower()
    with server.connect() as connection:
        connection.execute(
            f"create database {name} template template0 encoding '{encoding}' locale 'C'".encode()
        )
    return name


def test_a_database_of_another_encoding_comes_back_to_any_moment(tmp_path: Path) -> None:
    with start_postgres(OLD) as server:
        name = _made(server, "LATIN1")
        acme = Acme(server, tmp_path / "repository", database=name)
        acme.run(
            'create table "prénom" (id serial primary key, "été" text)',
            "insert into \"prénom\" (\"été\") values ('garçon'), (E'ÿ\\t')",
        )
        acme.client.prepare_source(DB, consent=True)
        acme.drain()
        acme.client.backup()
        acme.run(
            'insert into "prénom" ("été") values (\'là\')',
            "create table \"à\" (a text primary key default 'défaut')",
            'insert into "à" default values',
        )
        at = acme.now()
        acme.run("comment on table \"à\" is 'ô'")
        report = acme.drain()

        assert report.broken == ()
        then = acme.restored(at)
        query = 'select "été", (select a from "à") from "prénom" order by id'
        assert acme.run(query, database=then) == acme.run(query)
        assert acme.run("show server_encoding", database=then) == [("LATIN1",)]


def test_a_database_of_any_bytes_is_saved_byte_by_byte_and_has_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_SMALL_PAGES", 2)
    with start_postgres(NEW) as server:
        name = _made(server, "SQL_ASCII")
        acme = Acme(server, tmp_path / "repository", database=name)
        with psycopg.connect(server.url(name), client_encoding="latin1", autocommit=True) as one:
            for table, count in (("small", 1), ("large", 3000)):
                one.execute(f"create table {table} (a text default 'ÿ')".encode("latin1"))
                one.execute(
                    f"insert into {table} select E'\\xe9\\xff ' || g"
                    f" from generate_series(1, {count}) g".encode("latin1")
                )
            one.execute('create table "é" (a text)'.encode("latin1"))
            one.execute(
                "insert into \"é\" select 'é' from generate_series(1, 3000)".encode("latin1")
            )

        acme.client.backup()
        restored(acme.client, server.url("then"))
        (encoding,) = [each for each in acme.client.check_source(DB) if each.what == "log"]

        assert _digest(acme, "then") == _digest(acme, name)
        assert "encoding (SQL_ASCII" in encoding.evidence
        with pytest.raises(SourceUnprepared, match="encoding"):
            acme.client.prepare_source(DB, consent=True)


def test_an_old_server_s_log_is_replayed_on_a_new_one_and_never_back(tmp_path: Path) -> None:
    with start_postgres(OLD) as old, start_postgres(NEW) as new:
        acme = Acme(old, tmp_path / "old")
        acme.begin()
        acme.run(
            "create table u (id int generated always as identity primary key, a text)",
            "insert into u (a) select 'x' from generate_series(1, 100)",
            "insert into t values (1, 'x')",
            "alter table t add column c int default 7",
            "update t set b = 'y'",
        )
        at, expected = acme.now(), _digest(acme, "acme")
        acme.run("truncate t, u")
        acme.drain()
        then = acme.restored(at, server=new)
        assert _digest(acme, then, new) == expected

        newer = Acme(new, tmp_path / "new")
        newer.begin()
        at = newer.now()
        newer.run("insert into t values (1, 'x')")
        newer.drain()
        with pytest.raises(RestoreError, match=f"older than the {NEW}") as refused:
            newer.restored(at, "back", server=old)
        assert f"version {NEW} or later" in refused.value.hint
        assert not old.run("psql", "-Atc", "select 1 from pg_database where datname ~ 'back'")
