"""An incremental backup holds the large objects of its moment, and reads those that changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.errors import LogBroken
from kryonix_backup.sources.postgres.incremental.objects import objects_now
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import VERSIONS
from tests.sources.postgres.story import KEYED, Story

pytestmark = [
    pytest.mark.service,
    pytest.mark.parametrize("postgres", [max(VERSIONS)], indirect=True, ids=["newest"]),
]
COUNTED = "select pg_stat_force_next_flush()"


@pytest.fixture
def story(postgres: PostgresServer, tmp_path: Path) -> Story:
    """A database with large objects, one of them long, and its log."""
    made = Story(postgres, tmp_path)
    made.run(
        KEYED, "select lo_from_bytea(7, repeat('long', 100000)::bytea), lo_from_bytea(9, 'short')",
        "comment on large object 7 is 'as it was'",
    )  # fmt: skip
    made.begin()
    return made


def test_it_reads_those_that_changed_and_leaves_out_those_that_are_gone(story: Story) -> None:
    story.run(
        "select lo_put(9, 0, 'other'), lo_from_bytea(8, 'new'), lo_from_bytea(80, 'passing')",
        "insert into keyed values (1)", "comment on large object 7 is 'said anew'",
    )  # fmt: skip
    story.client.back_up_logs()
    story.run("select lo_unlink(80)")
    story.remember()
    said = story.incremental()
    assert (said["kind"], said["why"]) == ("incremental", "")
    assert said["bytes_read"] < 10_000 < said["bytes_total"]
    story.prove_snapshot(*story.moments[0][1:])

    story.run("select lo_unlink(9), lo_put(7, 0, 'chan'), lo_create(3)", COUNTED)
    story.client.back_up_logs()
    story.remember()
    story.incremental()
    story.client.back_up_logs()
    second = story.remember()
    story.run("select lo_unlink(oid) from pg_largeobject_metadata", COUNTED)
    story.client.back_up_logs()
    story.remember()
    assert story.incremental()["kind"] == "incremental"
    story.run(COUNTED)
    story.client.back_up_logs()

    assert [story.chosen_at(moment) for moment, _, _ in story.moments] == [
        "full", "incremental", "incremental", "incremental",
    ]  # fmt: skip
    for moment in story.moments[1:]:
        story.prove_one(*moment)
    assert second == story.moments[2][0]
    story.prove_snapshot(*story.moments[-1][1:])


def test_who_may_not_see_which_changed_makes_a_full_one(
    postgres: PostgresServer, story: Story
) -> None:
    address = Address.parse(postgres.url(story.database, user="weak_folder"))
    with story.server.connect(story.database) as connection:
        connection.execute("create role weak_folder login; set role weak_folder")
        try:
            with (
                pytest.raises(LogBroken, match="weak_folder may not see which"),
                objects_now(connection, address),
            ):
                pass
        finally:
            connection.execute("reset role; drop role weak_folder")
