"""Large objects come back as they were when they were sampled last, which is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import VERSIONS
from tests.sources.postgres import rich
from tests.sources.postgres.story import Story

pytestmark = pytest.mark.service
newest = pytest.mark.parametrize("postgres", [max(VERSIONS)], indirect=True, ids=["newest"])
# What a server counts is known a second later, or when a session ends, or now.
COUNTED = "select pg_stat_force_next_flush()"
FIRST = (
    "select lo_from_bytea(1, 'of then'), lo_from_bytea(2, 'gone later'), lo_create(5)",
    "comment on large object 1 is 'of then'", "comment on large object 5 is 'is kept'",
)  # fmt: skip
THEN = (
    "select lo_put(1, 2, 'changed'), lo_unlink(2), lo_from_bytea(3, repeat('long', 999)::bytea)",
    "grant select on large object 3 to public", "alter large object 3 owner to pg_monitor",
    "comment on large object 3 is 'made since'", "grant all on large object 1 to public",
    "comment on large object 1 is null", COUNTED,
)  # fmt: skip
LAST = (
    "select lo_unlink(3), lo_from_bytea(2, 'again'), lo_truncate(lo_open(1, 131072), 0)",
    "comment on large object 5 is 'said anew'", COUNTED,
)  # fmt: skip


@pytest.fixture
def story(postgres: PostgresServer, tmp_path: Path) -> Story:
    """A database that nothing was done with."""
    return Story(postgres, tmp_path)


def _objects(story: Story, database: str = "") -> dict[str, tuple[int, str]]:
    return rich.large_objects(story.server, database or story.database)


def test_they_are_as_of_the_newest_sample_before_the_moment(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    story.run(*FIRST)
    story.begin()
    first = story.remember()
    story.run(*THEN)
    unseen = story.remember()
    story.client.back_up_logs()
    then = story.remember()
    story.run(*LAST)
    story.client.back_up_logs()
    story.remember()
    story.run(COUNTED)
    story.client.back_up_logs()

    (_, known, _), (_, _, _), *rest = story.moments
    for moment in (first, unseen):
        assert _objects(story, story.restored_at(moment)) == {
            name: known[name] for name in known if name.startswith("large object")
        }
    assert "and were sampled then" in caplog.text or "as of the backup" in caplog.text
    assert rest[0][0] == then
    for each in rest:
        story.prove_one(*each)
