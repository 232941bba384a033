"""
A database with TimescaleDB, which an extension of that name stands for here.

It has what matters to us: its version, a schema with chunks that inherit from a hypertable, a
catalog with rows of its own, and functions that want to be called around a restore. The real one
was never tried: no package of it is at hand. Its own making of chunks, and compression, are not in
this likeness.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.errors import RestoreError
from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.session import connected
from kryonix_backup.sources.postgres.timescale import check_timescale, timescale_of
from kryonix_backup.testing.postgres import PostgresServer, start_postgres
from tests.integration.followed import DB, Acme

pytestmark = pytest.mark.service

_CONTROL = "comment = 'a likeness'\ndefault_version = '2.1'\nrelocatable = false\n"
_SCRIPT = """
create schema _timescaledb_catalog;
create schema _timescaledb_internal;
create table _timescaledb_catalog.metadata (key text primary key, value text);
insert into _timescaledb_catalog.metadata values ('theirs', '@version@');
select pg_extension_config_dump('_timescaledb_catalog.metadata', $$where key <> 'theirs'$$);
create table _timescaledb_catalog.calls (number serial, said text);
create function timescaledb_pre_restore() returns bool language plpgsql as $$ begin
    if exists (select from pg_class where relname = 'conditions') then
        raise 'too late';
    end if;
    execute format('alter database %I set timescaledb.restoring = ''on''', current_database());
    return true;
end $$;
create function timescaledb_post_restore() returns bool language plpgsql as $$ begin
    if current_setting('timescaledb.restoring') <> 'on'
       or not exists (select from public.conditions) then
        raise 'too early';
    end if;
    execute format('alter database %I reset timescaledb.restoring', current_database());
    insert into _timescaledb_catalog.calls (said) values ('post');
    return true;
end $$;
"""
_HYPERTABLE = """
create table conditions (at timestamptz not null, degrees float8);
create table _timescaledb_internal._hyper_1_1_chunk (
    check (at >= '2026-01-01' and at < '2026-02-01')) inherits (conditions);
create function routed() returns trigger language plpgsql as
    'begin insert into _timescaledb_internal._hyper_1_1_chunk values (new.*); return null; end';
create trigger routing before insert on conditions for each row execute function routed();
insert into conditions select timestamptz '2026-01-01' + g * interval '1 hour', g
    from generate_series(1, 100) g;
insert into _timescaledb_catalog.metadata values ('ours', 'saved')
"""


def _extension(folder: Path, *versions: str) -> None:
    (folder / "extension").mkdir(exist_ok=True)
    (folder / "extension/timescaledb.control").write_text(_CONTROL)
    for version in versions:
        script = folder / f"extension/timescaledb--{version}.sql"
        script.write_text(_SCRIPT.replace("@version@", version))


def _look_into(server: PostgresServer) -> None:
    path = f"{server.folder}:$system"
    server.run("psql", "-c", f"alter system set extension_control_path = '{path}'")
    server.run("psql", "-c", "select pg_reload_conf()")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of 18, which looks for extensions in a folder of ours too."""
    with start_postgres(18) as made:
        _look_into(made)
        _extension(made.folder, "2.0", "2.1")
        yield made


def test_chunks_come_back_between_the_two_calls_and_to_any_moment(
    server: PostgresServer, tmp_path: Path
) -> None:
    acme = Acme(server, tmp_path / "repository")
    server.run("createdb", "acme")
    acme.run("create extension timescaledb version '2.0'", *_HYPERTABLE.split(";\n"))
    assert [each.what for each in acme.client.check_source(DB) if not each.passed] == []
    acme.client.prepare_source(DB, consent=True)
    acme.drain()
    acme.client.backup()
    acme.run(
        "insert into conditions values ('2026-01-20', 1000)",
        "update conditions set degrees = -degrees where degrees < 10",
        "delete from conditions where degrees between 50 and 60",
    )
    at = acme.now()
    query = "select tableoid::regclass::text, * from conditions order by 2"
    expected = acme.run(query)
    acme.run("truncate _timescaledb_internal._hyper_1_1_chunk")
    acme.drain()
    then = acme.restored(at)

    assert len(expected) == 90
    assert acme.run(query, database=then) == expected
    assert acme.run("select said from _timescaledb_catalog.calls", database=then) == [("post",)]
    assert acme.run("select extversion from pg_extension where extname = 'timescaledb'",
                    database=then) == [("2.0",)]  # fmt: skip
    rows = "select * from _timescaledb_catalog.metadata order by 1"
    assert acme.run(rows, database=then) == [("ours", "saved"), ("theirs", "2.0")]
    assert acme.run("select setconfig from pg_db_role_setting", database=then) == []


def test_check_says_what_holds(server: PostgresServer) -> None:
    acme = Acme(server, Path(server.folder / "unused"), database="checked")
    server.run("createdb", "checked")
    acme.run("create extension timescaledb")
    source = acme.client
    (told,) = [each for each in source.check_source(DB) if each.what == "TimescaleDB"]
    source.prepare_source(DB, consent=True)
    (failed,) = [each for each in source.check_source(DB) if each.what == "log: TimescaleDB"]

    assert told.passed
    assert "version 2.1" in told.evidence
    assert "a cluster of its own (postgresql+physical://)" in told.evidence
    assert not failed.passed
    assert "compressed chunks" in failed.evidence
    assert "postgresql+physical://" in failed.mend


def test_another_version_is_refused_before_anything_is_made(
    server: PostgresServer, tmp_path: Path
) -> None:
    with start_postgres(18) as other:
        acme = Acme(server, tmp_path / "repository", database="versioned")
        server.run("createdb", "versioned")
        acme.run("create extension timescaledb version '2.0'")
        acme.client.backup()
        at = acme.now()
        for has in ("none", "2.1"):
            with pytest.raises(RestoreError, match=f"needs TimescaleDB 2.0; its server has {has}"):
                acme.restored(at, "elsewhere", server=other)
            _extension(other.folder, "2.1")
            _look_into(other)
        databases = other.run("psql", "-Atc", "select datname from pg_database order by 1")

    assert databases.split() == ["postgres", "template0", "template1"]


def test_a_database_without_it_needs_nothing(server: PostgresServer) -> None:
    address = Address.parse(server.url())
    with connected(address) as connection:
        assert timescale_of(connection) is None
        check_timescale(connection, address, None)
