"""A database comes back from an incremental backup as it does from the full one and its log."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.services.postgres import VERSIONS
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored
from tests.sources.postgres.story import (
    CHANGES_OF_THE_SCHEMA,
    EVERYTHING,
    KEYED,
    LOOSE,
    ROWS,
    Load,
    Story,
)

pytestmark = pytest.mark.service
newest = pytest.mark.parametrize("postgres", [max(VERSIONS)], indirect=True, ids=["newest"])


@pytest.mark.parametrize("load", [ROWS, CHANGES_OF_THE_SCHEMA], ids=["rows", "schema"])
def test_what_was_done_comes_back_from_one_incremental_and_from_two(
    lived: Callable[[Load], Story], load: Load
) -> None:
    prove_folded(lived(load))


@newest
def test_everything_that_a_database_may_hold_comes_back(lived: Callable[[Load], Story]) -> None:
    prove_folded(lived(EVERYTHING))


def prove_folded(story: Story) -> None:
    """Every moment since the first incremental backup, and the next one by itself."""
    chosen = [story.chosen_at(moment) for moment, _, _ in story.moments]
    first = chosen.index("incremental")
    assert set(chosen[:first]) == {"full"}
    assert set(chosen[first:]) == {"incremental"}
    for moment in story.moments[first:]:
        story.prove_one(*moment)
    story.incremental()
    story.prove_snapshot(*story.moments[-1][1:])


@newest
def test_sequences_are_never_behind_their_columns(story: Story) -> None:
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
def test_what_no_log_holds_is_as_it_is_now(story: Story) -> None:
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
def test_a_part_of_it_comes_back_beside_what_was_there(story: Story) -> None:
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


def _is_full(story: Story, why: str) -> None:
    said = story.incremental()
    assert said["kind"] == "full"
    assert why in said["why"]
    assert said["bytes_read"] == said["bytes_total"] > 0


@newest
def test_after_a_bad_migration_it_is_a_full_one(story: Story) -> None:
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
def test_after_a_slot_was_lost_or_released_it_is_a_full_one(story: Story) -> None:
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
def test_of_a_database_that_was_put_in_its_place_it_is_a_full_one(story: Story) -> None:
    story.run(KEYED)
    story.begin()
    restored(story.client, overwrite=True)
    story.client.prepare_source("db", consent=True)
    story.run("insert into keyed values (1)")

    _is_full(story, "of another database, or of another server")


@newest
def test_many_changes_are_folded_in_parts(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kryonix_backup.sources.postgres.incremental.folding.MOST_KEYS", 1000)
    monkeypatch.setattr("kryonix_backup.sources.postgres.restoring.replay._MOST_KEYS", 1000)
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
