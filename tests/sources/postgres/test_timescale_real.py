"""
A database with the real TimescaleDB, backed up and restored by all that is ours.

It runs as one backend for all connections, without workers beside it and without a log: what
stands for the rest of a server is told in ``tests/services/timescaledb/server.mjs``. What needs a
whole one is tried with a likeness in `test_timescale`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from kryonix_backup.errors import RestoreError, SourceUnprepared
from kryonix_backup.model import Phase
from kryonix_backup.sdk.client import RestoreRequest
from kryonix_backup.sources.postgres import database as source
from kryonix_backup.sources.postgres.dumping.contents import tables_of
from kryonix_backup.sources.postgres.restoring import target
from kryonix_backup.sources.postgres.server import timescale
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.sources.postgres.server.timescale import check_timescale, timescale_of
from tests.integration.followed import DB, Acme
from tests.services.timescale import TimescaleServer, timescale_server
from tests.sources.postgres.engine import restored

# Seconds of work for the module, of which other tests take as many again.
pytestmark = [
    pytest.mark.service,
    pytest.mark.xdist_group("timescaledb"),
    pytest.mark.timeout(300),
]

# Nine days of rows, each a chunk: five are compressed, one of which got a row afterwards.
_LIFE = """
create extension timescaledb;
create table conditions (at timestamptz not null, device int not null, degrees float8, note text);
select create_hypertable('conditions', by_range('at', interval '1 day'));
insert into conditions select timestamptz '2026-01-01' + g * interval '10 minutes', d, g * 0.1 + d,
    case when g % 7 = 0 then E'a\\ttab ' || g end
    from generate_series(0, 9 * 144 - 1) g, generate_series(1, 3) d;
alter table conditions set (timescaledb.compress, timescaledb.compress_segmentby = 'device',
    timescaledb.compress_orderby = 'at desc');
select compress_chunk(c) from show_chunks('conditions', older_than => timestamptz '2026-01-06') c;
insert into conditions values ('2026-01-02 00:00:30', 1, -1, 'came late');
create materialized view daily with (timescaledb.continuous) as
    select time_bucket('1 day', at) as day, device, avg(degrees) as mean, count(*) as number
    from conditions group by 1, 2 with no data;
call refresh_continuous_aggregate('daily', null, timestamptz '2026-01-08');
create materialized view weekly with (timescaledb.continuous,
    timescaledb.materialized_only = false) as
    select time_bucket('7 days', day) as week, sum(number) as number
    from daily group by 1 with no data;
call refresh_continuous_aggregate('weekly', null, null);
create materialized view totals as select device, count(*), sum(degrees) from conditions group by 1;
create table counts (n bigint not null, place text not null, value int);
select create_hypertable('counts', by_range('n', 100));
select add_dimension('counts', by_hash('place', 2));
insert into counts select g, 'place ' || g % 5, g from generate_series(0, 349) g;
create table plain (id int generated always as identity primary key, words text);
insert into plain (words) select 'word ' || g from generate_series(1, 20) g;
select add_retention_policy('conditions', interval '30 days');
select add_compression_policy('conditions', interval '7 days');
select add_continuous_aggregate_policy('daily', interval '30 days', interval '1 day',
    interval '1 hour');
create procedure own_job(job_id int, config jsonb) language sql as
    $$insert into public.plain (words) values ('of a job')$$;
select add_job('own_job', '1 day', config => '{"a": 1}');
select alter_job(add_job('own_job', '2 days'), scheduled => false)
"""
_ROWS = 9 * 144 * 3 + 1
# What a user of the database sees; all of it has to be the same in a restored one.
_SEEN = {
    "rows": "select *, tableoid::regclass::text from conditions order by 1, 2",
    "counts": "select *, tableoid::regclass::text from counts order by 1",
    "plain": "select * from plain order by 1",
    "daily": "select * from daily order by 1, 2",
    "weekly": "select * from weekly order by 1",
    "totals": "select * from totals order by 1",
    "hypertables": "select * from timescaledb_information.hypertables order by 1, 2",
    "dimensions": "select * from timescaledb_information.dimensions order by 1, 2, 3",
    "chunks": "select to_jsonb(c) - 'chunk_creation_time' from timescaledb_information.chunks c"
    " order by chunk_name",
    "compressed": "select * from timescaledb_information.compression_settings order by 2, 3",
    "sizes": "select * from chunk_compression_stats('conditions') order by 2",
    "aggregates": "select * from timescaledb_information.continuous_aggregates order by 2",
    "jobs": "select to_jsonb(j) - 'next_start' from timescaledb_information.jobs j"
    " where job_id >= 1000 order by job_id",
}


class Lived:
    """The tenant acme with a database that has lived, and one backup of it."""

    def __init__(self, server: TimescaleServer, work: Path) -> None:
        self.server = server
        self.acme = Acme(server, work / "repository")  # type: ignore[arg-type]
        self.acme.run("create database acme", database="postgres")
        self.acme.run(*_LIFE.split(";\n"))
        self.then = self.seen()
        with pytest.MonkeyPatch.context() as patched:
            # As of large chunks: two programs each read a part of those that have three pages.
            patched.setattr(source, "_RANGE_PAGES", 2)
            patched.setattr(source, "_SMALL_PAGES", 3)
            self.acme.client.backup()

    def seen(self, database: str = "acme") -> dict[str, list[Any]]:
        """What is in a database, as its users see it."""
        return {what: self.acme.run(query, database=database) for what, query in _SEEN.items()}

    def databases(self, like: str) -> list[Any]:
        """The names of the databases that there are."""
        query = f"select datname from pg_database where datname like '{like}'"
        return self.acme.run(query, database="postgres")

    def drop(self, database: str) -> None:
        """Drop a database, whose memory is needed for the next."""
        self.acme.run(f"drop database {database}", database="postgres")

    def catalog(self, database: str) -> dict[str, list[Any]]:
        """What the extension knows of a user's tables, and what was saved of that."""
        with connected(Address.parse(self.server.url(database))) as connection:
            return {
                table.name: sorted(
                    connection.execute(
                        f"select to_jsonb(t)::text from {table.schema}.{table.name} t {table.where}"
                    ).fetchall()
                )
                for table in tables_of(connection)
                if table.extension
            }


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """One server for all tests here: it takes seconds to start, and several hundred MiB."""
    work = tmp_path_factory.mktemp("timescale")
    with timescale_server(work / "server.log") as server:
        yield Lived(server, work)


def test_what_is_saved_is_the_users_and_what_the_extension_says_of_it(lived: Lived) -> None:
    with connected(Address.parse(lived.server.url("acme"))) as connection:
        tables = tables_of(connection)
    chosen = {f"{table.schema}.{table.name}": table.where for table in tables if table.extension}
    theirs = {table.name for table in tables if not table.extension}
    named = lived.acme.run(
        "select c.oid::regclass::text from pg_extension e, unnest(extconfig) c(oid)"
        " join pg_class using (oid) where extname = 'timescaledb' and relkind = 'r'"
    )
    chunks = lived.acme.run(
        "select h.table_name, c.table_name, c.compressed_chunk_id is not null"
        " from _timescaledb_catalog.chunk c join _timescaledb_catalog.hypertable h"
        " on h.id = c.hypertable_id"
    )

    assert set(chosen) == {name for (name,) in named}
    assert {"_timescaledb_catalog.chunk", "_timescaledb_catalog.continuous_agg"} <= set(chosen)
    assert "1000" in chosen["_timescaledb_config.bgw_job"]  # those below are the extension's own
    assert "uuid" in chosen["_timescaledb_catalog.metadata"]  # which every database has its own of
    assert "_timescaledb_internal.bgw_job_stat" not in chosen
    assert {name for _, name, _ in chunks} <= theirs
    assert {"conditions", "counts", "plain"} <= theirs
    assert [kept for table, _, kept in chunks if table == "conditions"].count(True) == 5


def test_everything_comes_back_and_goes_on(lived: Lived) -> None:
    restored(lived.acme.client, lived.server.url("then"))

    def run(*statements: str) -> list[Any]:
        return lived.acme.run(*statements, database="then")

    assert lived.seen("then") == lived.then
    assert lived.catalog("then") == lived.catalog("acme")
    assert run("select setconfig from pg_db_role_setting") == []
    assert run("show timescaledb.restoring") == [("off",)]
    # At once, a policy would compress what is compared, and another drop what has come back.
    assert run(
        "select job_id, next_start > now() + 0.9 * schedule_interval"
        " from timescaledb_information.jobs where scheduled and job_id >= 1000 order by 1"
    ) == [(job, True) for job in range(1000, 1004)]
    run("insert into conditions values ('2026-02-01', 1, 1), ('2026-01-02 00:00:40', 2, 2)")
    assert run("select count(*) from conditions") == [(_ROWS + 2,)]
    assert run("select count(*) from show_chunks('conditions')") == [(10,)]
    run("call refresh_continuous_aggregate('daily', null, null)")
    assert run("select sum(number) from daily") == [(_ROWS + 2,)]
    run("select decompress_chunk(c) from show_chunks('conditions', older_than =>"
        " timestamptz '2026-01-03') c",
        "call run_job(1001)")  # fmt: skip
    assert run("select count(*) from timescaledb_information.chunks where is_compressed") == [(10,)]
    assert run("select count(*) from conditions") == [(_ROWS + 2,)]
    run("call run_job(1000)")
    assert run("select count(*) from conditions") == [(0,)]
    assert run("select sum(number) from daily") == [(_ROWS + 2,)]


def test_it_rests_until_all_is_compared_and_a_catalog_of_another_version_goes_no_further(
    lived: Lived,
) -> None:
    client = lived.acme.client
    plan = client.plan_restore(RestoreRequest(to={"db": lived.server.url("later")}))
    client.begin_restore(plan)
    client.run_phase(plan, Phase.INFRASTRUCTURE_PREPARATION)
    client.run_phase(plan, Phase.DATABASE_RESTORE)
    ((new,),) = lived.databases("later%")
    version = (
        "update _timescaledb_catalog.metadata set value = {} where key = 'timescaledb_version'"
    )
    count = "select count(*) from conditions"
    resting = lived.acme.run("show timescaledb.restoring", database=new)
    fewer = lived.acme.run(count, database=new)
    filled = lived.acme.run(_SEEN["totals"], database=new)
    lived.acme.run(version.format("'2.0'"), database=new)
    with pytest.raises(RestoreError, match="catalog version mismatch") as refused:
        client.run_phase(plan, Phase.VALIDATION_AND_FINALIZATION)
    kept = lived.databases("later%")
    lived.acme.run(
        version.format("(select extversion from pg_extension where extname = 'timescaledb')"),
        database=new,
    )
    client.run_phase(plan, Phase.VALIDATION_AND_FINALIZATION)

    assert resting == [("on",)]
    assert fewer == [(1729,)]  # whoever forgets to wake it misses rows without an error
    assert filled == lived.then["totals"]
    assert '"2.0"' in refused.value.message
    assert kept == [(new,)]
    assert lived.databases("later%") == [("later",)]
    assert lived.acme.run(count, database="later") == [(_ROWS,)]
    assert lived.acme.run("show timescaledb.restoring", database="later") == [("off",)]
    lived.drop("later")


def test_without_a_rest_it_refuses_its_own_tables(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = timescale._call
    monkeypatch.setattr(
        timescale, "_call",
        lambda schema, when: sql.SQL("select 1") if when == "pre" else real(schema, when),
    )  # fmt: skip
    with pytest.raises(RestoreError, match='table "conditions" is not a hypertable'):
        restored(lived.acme.client, lived.server.url("restless"))


def test_a_restore_that_fails_half_way_leaves_nothing_that_rests(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RestoreError("the disk of the target is gone")

    client = lived.acme.client
    plan = client.plan_restore(RestoreRequest(overwrite=True))
    client.begin_restore(plan)
    client.run_phase(plan, Phase.INFRASTRUCTURE_PREPARATION)
    with monkeypatch.context() as patched:
        patched.setattr(target, "load_rows", failing)
        with pytest.raises(RestoreError, match="is gone"):
            client.run_phase(plan, Phase.DATABASE_RESTORE)
    (half,) = [name for (name,) in lived.databases("acme%") if name != "acme"]
    resting = lived.acme.run("show timescaledb.restoring", database=half)
    client.roll_back_restore(plan)

    assert resting == [("on",)]
    assert lived.databases("acme%") == [("acme",)]
    assert lived.acme.run("show timescaledb.restoring") == [("off",)]
    assert lived.seen() == lived.then


def test_a_part_of_it_is_a_database_that_works(lived: Lived) -> None:
    restored(lived.acme.client, lived.server.url("part"), include=("public.plain",))

    def run(*statements: str) -> list[Any]:
        return lived.acme.run(*statements, database="part")

    assert run(_SEEN["plain"]) == lived.then["plain"]
    assert run(_SEEN["jobs"]) == lived.then["jobs"]
    assert run("select count(*) from conditions") == [(0,)]
    assert run("insert into conditions values ('2026-01-09 12:00', 1, 1)", _SEEN["rows"])[0][4] == (
        "_timescaledb_internal._hyper_1_9_chunk"
    )
    lived.drop("part")


def test_a_server_that_cannot_run_it_is_told_before_anything_is_made(lived: Lived) -> None:
    address = Address.parse(lived.server.url("acme"))
    with connected(address) as connection:
        saved = timescale_of(connection)
        assert saved is not None
        check_timescale(connection, address, saved[0])
        with pytest.raises(
            RestoreError, match=f"needs TimescaleDB 2.19.3; its server has {saved[0]}"
        ):
            check_timescale(connection, address, "2.19.3")
        connection.execute("set timescaledb.allow_install_without_preload to off")
        with pytest.raises(RestoreError, match="does not load it"):
            check_timescale(connection, address, saved[0])


def test_no_log_is_kept_as_its_publication_would_forbid_hypertables(lived: Lived) -> None:
    with pytest.raises(SourceUnprepared, match="refuses to make a hypertable") as refused:
        lived.acme.client.prepare_source(DB, consent=True)
    found = {each.what: each for each in lived.acme.client.check_source(DB)}
    with lived.server.connect("acme") as connection:
        connection.execute("create table wanted (at timestamptz not null)")
        connection.execute("create publication everything for all tables")
        with pytest.raises(psycopg.DatabaseError, match="it is part of a publication"):
            connection.execute("select create_hypertable('wanted', by_range('at'))")
        connection.execute("drop publication everything; drop table wanted")

    assert "postgresql+physical://" in refused.value.hint
    assert lived.acme.run("select from pg_namespace where nspname = 'kryonix'") == []
    assert found["TimescaleDB"].passed
    assert found["log"].passed
    assert "TimescaleDB" in found["log"].evidence
