"""
A database with TimescaleDB, which an extension of that name stands for here, on a whole server.

`test_timescale_real` has the real one, which only runs as a single backend. This has of it what
matters to us around that: its version, chunks that inherit from a hypertable, a catalog with keys
between its tables and rows of its own, jobs, and functions that want to be called around a restore.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.errors import RestoreError, SourceUnprepared
from kryonix_backup.model import Phase
from kryonix_backup.sdk.client import RestoreRequest
from kryonix_backup.sources.postgres.restoring.target import PostgresTarget
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.sources.postgres.server.timescale import (
    check_timescale,
    timescale_finding,
    timescale_log,
    timescale_of,
    wake,
)
from kryonix_backup.testing.postgres import PostgresServer, start_postgres
from tests.integration.followed import DB, Acme
from tests.sources.postgres.engine import restored

pytestmark = pytest.mark.service

_CONTROL = "comment = 'a likeness'\ndefault_version = '2.1'\nrelocatable = false\n"
_SCRIPT = """
create schema _timescaledb_catalog;
create schema _timescaledb_config;
create schema _timescaledb_internal;
create table _timescaledb_catalog.metadata (key text primary key, value text);
insert into _timescaledb_catalog.metadata values ('theirs', '@version@'), ('made', now()::text);
select pg_extension_config_dump('_timescaledb_catalog.metadata', $$where key <> 'theirs'$$);
create table _timescaledb_catalog.hypertable (id int primary key, name text);
create table _timescaledb_catalog.chunk (
    id int primary key, hypertable_id int not null references _timescaledb_catalog.hypertable);
select pg_extension_config_dump('_timescaledb_catalog.hypertable', '');
select pg_extension_config_dump('_timescaledb_catalog.chunk', '');
create table _timescaledb_config.bgw_job (
    id int primary key, scheduled bool, schedule_interval interval, next_start timestamptz);
insert into _timescaledb_config.bgw_job values (1, true, '1 hour');
select pg_extension_config_dump('_timescaledb_config.bgw_job', 'WHERE id >= 1000');
create function alter_job(job_id int, next_start timestamptz) returns void language sql as
    'update _timescaledb_config.bgw_job set next_start = $2 where id = $1';
create table _timescaledb_catalog.calls (number serial, said text);
create function timescaledb_pre_restore() returns bool language plpgsql as $$ begin
    if exists (select from pg_class where relname = 'conditions') then
        raise 'too late';
    end if;
    execute format('alter database %I set timescaledb.restoring = ''on''', current_database());
    return true;
end $$;
create function timescaledb_post_restore() returns bool language plpgsql as $$ begin
    if not exists (select from public.conditions) then
        raise 'too early';
    end if;
    execute format('alter database %I reset timescaledb.restoring', current_database());
    insert into _timescaledb_catalog.calls (said)
        values (coalesce(current_setting('timescaledb.restoring', true), 'off'));
    return true;
end $$;
"""
_CALLS = "select said from _timescaledb_catalog.calls order by number"
_HYPERTABLE = """
create table conditions (at timestamptz not null, degrees float8);
create table _timescaledb_internal._hyper_1_1_chunk (
    check (at >= '2026-01-01' and at < '2026-02-01')) inherits (conditions);
create function routed() returns trigger language plpgsql as
    'begin insert into _timescaledb_internal._hyper_1_1_chunk values (new.*); return null; end';
create trigger routing before insert on conditions for each row execute function routed();
insert into conditions select timestamptz '2026-01-01' + g * interval '1 hour', g
    from generate_series(1, 100) g;
insert into _timescaledb_catalog.metadata values ('ours', 'saved');
update _timescaledb_catalog.metadata set value = 'then' where key = 'made';
insert into _timescaledb_catalog.hypertable values (1, 'conditions');
insert into _timescaledb_catalog.chunk values (1, 1);
insert into _timescaledb_config.bgw_job values (1000, true, '1 day'), (1001, false, '1 day')
"""


# The real extension has to be loaded when a server starts, or this has to be set.
_WITHOUT_PRELOAD = {"timescaledb.allow_install_without_preload": "on"}


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
    with start_postgres(18, _WITHOUT_PRELOAD) as made:
        _look_into(made)
        _extension(made.folder, "2.0", "2.1")
        yield made


def test_chunks_come_back_between_the_two_calls(server: PostgresServer, tmp_path: Path) -> None:
    acme = Acme(server, tmp_path / "repository")
    server.run("createdb", "acme")
    acme.run(
        "create schema theirs",
        "create extension timescaledb schema theirs version '2.0'",
        *_HYPERTABLE.split(";\n"),
    )
    assert [each.what for each in acme.client.check_source(DB) if not each.passed] == []
    acme.client.backup()
    query = "select tableoid::regclass::text, * from conditions order by 2"
    expected = acme.run(query)
    acme.run("truncate _timescaledb_internal._hyper_1_1_chunk")
    restored(acme.client, server.url("then"))

    def then(query: str) -> list[Any]:
        return acme.run(query, database="then")

    assert len(expected) == 100
    assert then(query) == expected
    # A server stops what works in a database that it renames, so that is called again.
    assert then(_CALLS) == [("on",), ("off",)]
    assert then("select extversion, extnamespace::regnamespace::text from pg_extension"
                " where extname = 'timescaledb'") == [("2.0", "theirs")]  # fmt: skip
    assert then("select * from _timescaledb_catalog.metadata order by 1") == [
        ("made", "then"), ("ours", "saved"), ("theirs", "2.0"),
    ]  # fmt: skip
    assert then("select * from _timescaledb_catalog.chunk") == [(1, 1)]
    assert then(
        "select id, next_start > now() + interval '23 hours' from _timescaledb_config.bgw_job"
        " order by id"
    ) == [(1, None), (1000, True), (1001, None)]
    assert then("select setconfig from pg_db_role_setting") == []


def test_a_switch_that_is_taken_back_wakes_what_was_there(
    server: PostgresServer, tmp_path: Path
) -> None:
    acme = Acme(server, tmp_path / "repository", database="returned")
    server.run("createdb", "returned")
    acme.run("create extension timescaledb", *_HYPERTABLE.split(";\n"))
    acme.client.backup()
    starts = "select next_start from _timescaledb_config.bgw_job"
    plan = acme.client.plan_restore(RestoreRequest(overwrite=True))
    acme.client.begin_restore(plan)
    acme.client.run_phase(plan, Phase.INFRASTRUCTURE_PREPARATION)
    acme.client.run_phase(plan, Phase.DATABASE_RESTORE)
    PostgresTarget(server.url("returned"), plan.restore, overwrite=True).commit()
    switched = acme.run(_CALLS)
    acme.client.roll_back_restore(plan)

    assert switched == [("on",), ("off",)]
    assert acme.run(_CALLS) == [("off",)]
    assert acme.run(starts) == [(None,)] * 3


def test_a_function_that_could_be_meant_to_run_as_ours_is_not_called(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    acme = Acme(server, Path(server.folder / "unused"), database="overloaded")
    server.run("createdb", "overloaded")
    acme.run(
        "create extension timescaledb",
        *_HYPERTABLE.split(";\n"),
        "create function alter_job(job_id bigint, next_start timestamptz) returns void"
        " language plpgsql as $$begin create table ran_as_ours (); end$$",
    )
    wake(Address.parse(server.url("overloaded")), is_new=True)

    assert acme.run(_CALLS) == [("off",)]
    assert acme.run("select distinct next_start from _timescaledb_config.bgw_job") == [(None,)]
    assert acme.run("select to_regclass('ran_as_ours')") == [(None,)]
    assert "a second function alter_job in schema public" in caplog.text


def test_check_says_what_holds_and_no_log_is_kept(server: PostgresServer) -> None:
    acme = Acme(server, Path(server.folder / "unused"), database="checked")
    server.run("createdb", "checked")
    acme.run("create extension timescaledb")
    client = acme.client
    found = {each.what: each for each in client.check_source(DB)}
    with pytest.raises(SourceUnprepared, match="makes, compresses and drops chunks") as refused:
        client.prepare_source(DB, consent=True)
    acme.run("drop extension timescaledb")
    client.prepare_source(DB, consent=True)
    acme.run("create extension timescaledb")
    then = {each.what: each for each in client.check_source(DB)}
    client.release_source(DB)

    assert found["TimescaleDB"].passed
    assert "version 2.1" in found["TimescaleDB"].evidence
    assert "a cluster of its own (postgresql+physical://)" in found["TimescaleDB"].evidence
    assert found["log"].passed
    assert "postgresql+physical://" in refused.value.hint
    assert not then["log: TimescaleDB"].passed
    assert "postgresql+physical://" in then["log: TimescaleDB"].mend


def test_another_version_is_refused_before_anything_is_made(
    server: PostgresServer, tmp_path: Path
) -> None:
    with start_postgres(18) as other:
        acme = Acme(server, tmp_path / "repository", database="versioned")
        server.run("createdb", "versioned")
        acme.run("create extension timescaledb version '2.0'")
        acme.client.backup()
        for has in ("none", "2.1"):
            with pytest.raises(RestoreError, match=f"needs TimescaleDB 2.0; its server has {has}"):
                restored(acme.client, other.url("elsewhere"))
            _extension(other.folder, "2.1")
            _look_into(other)
        _extension(other.folder, "2.0")
        with pytest.raises(RestoreError, match="does not load it") as refused:
            restored(acme.client, other.url("elsewhere"))
        databases = other.run("psql", "-Atc", "select datname from pg_database order by 1")

    assert "shared_preload_libraries" in refused.value.hint
    assert databases.split() == ["postgres", "template0", "template1"]


def test_a_database_without_it_needs_nothing(server: PostgresServer) -> None:
    address = Address.parse(server.url())
    with connected(address) as connection:
        assert timescale_of(connection) is None
        assert not list(timescale_finding(connection))
        assert not list(timescale_log(connection))
        check_timescale(connection, address, None)
    wake(address, is_new=True)
