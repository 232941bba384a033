"""A database comes back from an incremental backup as it does from the full one and its log."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.client import RestoreRequest
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import VERSIONS
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored
from tests.sources.postgres.test_replay import KEYED, LOOSE, Story, without_ours

pytestmark = pytest.mark.service
newest = pytest.mark.parametrize("postgres", [max(VERSIONS)], indirect=True, ids=["newest"])


class Increments(Story):
    """A story that takes incremental backups between its parts."""

    def incremental(self) -> dict[str, Any]:
        """Take one; what its report says of the database."""
        report = self.client.backup(kind=BackupKind.INCREMENTAL).to_plain()
        said: dict[str, Any] = report["sources"]["db"]
        return said

    def increment(self, *parts: tuple[str, ...]) -> None:
        """
        Run each part, with an incremental backup before the last.

        What was there before that and after the last is remembered.
        """
        for part in parts[:-1]:
            self.run(*part)
        self.remember()
        said = self.incremental()
        assert (said["kind"], said["why"]) == ("incremental", "")
        self.run(*parts[-1])
        self.remember()
        self.client.back_up_logs()

    def chosen_at(self, moment: datetime) -> str:
        """The kind of the snapshot that a plan for that moment takes."""
        plan = self.client.plan_restore(RestoreRequest(at=moment))
        return self.client.snapshot(plan.snapshot).kind.value

    def prove_snapshot(self, digest: dict[str, tuple[int, str]], schema: str) -> None:
        """The newest snapshot by itself holds that."""
        target = f"{self.database}_alone"
        restored(self.client, self.server.url(target), overwrite=True)
        assert rich.digest(self.server, target) == digest
        assert without_ours(rich.schema(self.server, target)) == without_ours(schema)


@pytest.fixture
def story(postgres: PostgresServer, tmp_path: Path) -> Increments:
    """A database that nothing was done with."""
    return Increments(postgres, tmp_path)


def test_rows_of_every_kind_come_back_from_one_incremental_and_from_two(story: Increments) -> None:
    story.run(
        KEYED, LOOSE,
        "alter table keyed alter b set storage external",
        "insert into keyed select g, 'a' || g, repeat(md5(g::text), 200)"
        " from generate_series(1, 50) g",
        "insert into loose select g % 5, 'b' from generate_series(1, 50) g",
    )  # fmt: skip
    story.begin()
    story.increment(
        ("insert into keyed values (100, null, E'\\t\\\\N\\n')",
         "insert into loose values (null, null)"),
        ("update keyed set a = 'new' where id < 10", "update loose set b = 'c' where a = 1",
         "update keyed set id = id + 1000 where id between 10 and 20",
         "update keyed set a = 'moved' where id = 1011"),
        ("update keyed set id = -id; update keyed set id = -id where id = -5",),
    )  # fmt: skip
    story.increment(
        ("delete from keyed where id = -7", "insert into keyed values (-7, 'again', 'x')",
         ("update keyed set id = 9999 where id = -1; update keyed set id = -1 where id = -2;"
          " update keyed set id = -2 where id = 9999")),
        ("delete from loose where ctid in (select ctid from loose where a = 2 limit 3)",
         "begin; savepoint s; delete from keyed; rollback to s; delete from loose; commit"),
        ("insert into loose select 1, 'b' from generate_series(1, 3)", "truncate loose, keyed",
         "insert into keyed values (1, 'after', 'truncate')"),
    )  # fmt: skip
    assert [story.chosen_at(moment) for moment, _, _ in story.moments] == [
        "full", "incremental", "incremental", "incremental",
    ]  # fmt: skip
    del story.moments[0]
    story.prove()
    story.incremental()
    story.prove_snapshot(*story.moments[-1][1:])


def test_changes_of_the_schema_stay_between_the_rows_that_they_were_made_between(
    story: Increments,
) -> None:
    story.run(KEYED, "insert into keyed select g, 'a', 'b' from generate_series(1, 9) g")
    story.begin()
    story.increment(
        ("alter table keyed add column c int not null default 7",
         "update keyed set c = id where id > 5",
         "create table copied as select id, c from keyed", "insert into copied values (1, 2)"),
        ("begin", "create table mixed (m int)", "insert into mixed values (1)",
         "alter table mixed add n text default 'z'", "insert into mixed values (2, 'y')", "commit",
         "alter table keyed rename a to renamed", "update keyed set renamed = 'r' where id = 1"),
        ("create table parts (d date) partition by range (d)",
         "create table one partition of parts for values from ('2026-01-01') to ('2027-01-01')",
         "insert into parts values ('2026-02-03')", "drop table copied"),
    )  # fmt: skip
    story.increment(
        ("create table added (x int primary key, y timestamptz default now())",
         "insert into added select generate_series(1, 5)", "truncate mixed"),
        ("alter table keyed drop column b", "insert into keyed values (77, 'q', 3)",
         "drop table added", "create view seen as select * from keyed"),
        ("insert into parts values ('2026-03-04')",),
    )  # fmt: skip
    del story.moments[:2]
    story.prove()


@newest
def test_everything_that_a_database_may_hold_comes_back(story: Increments) -> None:
    rich.fill(story.server, story.database, rows=60)
    story.run(
        "drop materialized view crm.count_again, crm.count",
        "select lo_unlink(oid) from pg_largeobject_metadata",
    )
    story.begin()
    story.increment(
        ("update crm.customer set name = name || '!', seen = now() where id % 3 = 0",
         "delete from crm.customer where id < 10", 'update crm."Order %.item" set "Note" = null'),
        ("insert into crm.event values ('2027-01-01', 'new'), ('2020-01-01', 'old')",
         "update crm.event set at = '2019-01-01' where what = 'new'",
         "insert into crm.nothing default values", "insert into crm.child values (3, 'x')"),
        ("insert into crm.child values (4, 'y')",),
    )  # fmt: skip
    del story.moments[0]
    story.prove()


@newest
def test_sequences_are_never_behind_their_columns(story: Increments) -> None:
    story.run("create table counted (id serial primary key, a text)", "create sequence free")
    story.begin()
    story.run(
        "insert into counted (a) select 'x' from generate_series(1, 40)", "select nextval('free')"
    )
    story.incremental()
    target = f"{story.database}_alone"
    restored(story.client, story.server.url(target), overwrite=True)

    with story.server.connect(target) as connection:
        connection.execute("insert into counted (a) values ('next')")
        rows = connection.execute("select max(id), nextval('free') >= 2 from counted").fetchone()
    assert rows == (41, True)


@newest
def test_what_no_log_holds_is_as_it_is_now(story: Increments) -> None:
    name = story.database
    story.run(KEYED, "drop role if exists newcomer")
    story.begin()
    story.run(
        "create role newcomer login", f'alter database "{name}" set work_mem to \'7MB\'',
        f"comment on database \"{name}\" is 'of now'",
        "create table theirs (a int primary key)", "alter table theirs owner to newcomer",
        "create materialized view counted as select count(*) from keyed",
        "insert into keyed values (1)",
    )  # fmt: skip
    story.incremental()
    story.run("alter table theirs owner to postgres", "drop role newcomer")
    target = f"{name}_alone"
    restored(story.client, story.server.url(target), overwrite=True)

    with story.server.connect(target) as connection:
        found = connection.execute(
            "select current_setting('work_mem'), shobj_description(d.oid, 'pg_database'),"
            " (select pg_get_userbyid(relowner) from pg_class where relname = 'theirs'),"
            " (select relispopulated from pg_class where relname = 'counted')"
            " from pg_database d where datname = current_database()"
        ).fetchone()
    assert found == ("7MB", "of now", "newcomer", True)


@newest
def test_a_part_of_it_comes_back_beside_what_was_there(story: Increments) -> None:
    story.run(
        KEYED, LOOSE, "create table other (id int primary key)",
        "insert into keyed select g, 'a', 'b' from generate_series(1, 9) g",
        "insert into loose select g, 'b' from generate_series(1, 9) g",
        "insert into other select generate_series(1, 9)",
    )  # fmt: skip
    story.begin()
    story.run(
        "delete from keyed where id < 3", "update loose set b = 'c'", "delete from other",
        "alter table keyed rename to renamed", "alter table other rename to keyed",
        "insert into renamed values (10)", "insert into keyed values (10)",
    )  # fmt: skip
    story.incremental()
    now = rich.digest(story.server, story.database)

    for request in ({}, {"at": story.remember()}):
        story.client.back_up_logs()
        target = f"{story.database}_part"
        restored(
            story.client, story.server.url(target), include=("public.keyed",), overwrite=True,
            **request,
        )  # fmt: skip
        part = rich.digest(story.server, target)
        assert part["public.renamed"] == now["public.renamed"]
        assert (part["public.keyed"][0], part["public.loose"][0]) == (0, 0)
        story.run(f'drop database "{target}"')


# ---------------------------------------------------------------------- full instead


def _is_full(story: Increments, why: str) -> None:
    said = story.incremental()
    assert said["kind"] == "full"
    assert why in said["why"]
    assert said["bytes_read"] == said["bytes_total"] > 0


@newest
def test_with_a_large_object_it_is_a_full_one(story: Increments) -> None:
    story.run(KEYED)
    story.begin()
    story.run("select lo_from_bytea(0, 'long')")
    _is_full(story, "the database holds large objects")

    story.run("select lo_unlink(oid) from pg_largeobject_metadata")
    _is_full(story, "the snapshot before holds large objects")
    assert story.incremental()["kind"] == "incremental"


@newest
def test_after_a_bad_migration_it_is_a_full_one(story: Increments) -> None:
    story.run(KEYED, "insert into keyed values (1, '1', 'b')")
    story.begin()
    story.run("alter table keyed alter a type int using a::int")
    _is_full(story, "it rewrote the rows of")

    story.run("insert into keyed values (2, 2, 'after')")
    assert story.incremental()["kind"] == "incremental"
    story.prove_snapshot(
        rich.digest(story.server, story.database), rich.schema(story.server, story.database)
    )


@newest
def test_after_a_slot_was_lost_or_released_it_is_a_full_one(story: Increments) -> None:
    story.run(KEYED)
    story.begin()
    story.run(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
        " where database = current_database()",
        "insert into keyed values (1)",
    )
    _is_full(story, "its transaction log is not kept")
    assert story.client.back_up_logs()["db"].gap
    _is_full(story, "stands at no place of a transaction log")
    assert story.incremental()["kind"] == "incremental"

    story.client.release_source("db")
    _is_full(story, "its transaction log is not kept")


@newest
def test_of_a_database_that_was_put_in_its_place_it_is_a_full_one(story: Increments) -> None:
    story.run(KEYED)
    story.begin()
    restored(story.client, overwrite=True)
    story.client.prepare_source("db", consent=True)
    story.run("insert into keyed values (1)")

    _is_full(story, "of another database, or of another server")


@newest
def test_many_changes_are_folded_in_parts(
    story: Increments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kryonix_backup.sources.postgres.folding.MOST_KEYS", 1000)
    monkeypatch.setattr("kryonix_backup.sources.postgres.replay._MOST_KEYS", 1000)
    story.run(KEYED, LOOSE)
    story.begin()
    story.increment(
        ("insert into keyed select g, 'a', 'b' from generate_series(1, 20000) g",),
        ("update keyed set a = 'c' where id % 2 = 0", "delete from keyed where id % 3 = 0",
         "insert into loose select id, a from keyed"),
        ("update loose set b = 'd' where a % 5 = 0", "delete from loose where a % 7 = 0"),
    )  # fmt: skip
    del story.moments[0]
    story.prove()
