"""Large objects come back as they were when they were sampled last, which is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kryonix_backup.errors import Damaged
from kryonix_backup.model import Problem
from kryonix_backup.sources.postgres.decoding import pgoutput, sample
from kryonix_backup.sources.postgres.restoring.applying import Applier
from kryonix_backup.sources.postgres.restoring.objects import Objects, Sampled
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import VERSIONS, new_database
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored
from tests.sources.postgres.story import KEYED, Story

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
    assert "they are in no log, and as of the backup" in caplog.text
    assert rest[0][0] == then
    for each in rest:
        story.prove_one(*each)
    assert "they are in no log, and were sampled then" in caplog.text


@newest
def test_a_restore_without_them_stays_without_them(story: Story) -> None:
    story.run(KEYED, *FIRST)
    story.begin()
    story.run(*THEN, "insert into keyed values (1)")
    story.client.back_up_logs()
    moment = story.remember()
    story.run(COUNTED)
    story.client.back_up_logs()

    target = f"{story.database}_rows"
    restored(story.client, story.server.url(target), at=moment, include=("data/*",))
    assert _objects(story, target) == {}
    assert rich.rows(story.server, target)["public.keyed"][0] == 1


def _taken(
    postgres: PostgresServer, frames: list[bytes], objects: Objects, whole: int
) -> tuple[Objects, list[int], tuple[Problem, ...]]:
    """What becomes of a database's one object, 7, by these frames."""
    database = new_database(postgres)
    with postgres.connect(database) as made:
        made.execute("select lo_create(7)")
        with (
            connected(Address.parse(postgres.url(database))) as connection,
            Applier(connection, lambda: None) as applier,
        ):
            sampled = Sampled(applier, objects, TIME)
            for message in pgoutput.frames(frames):
                sampled.take(message, {"at": whole})
        rows = made.execute("select oid::int8 from pg_largeobject_metadata order by 1").fetchall()
    return sampled.objects, [int(str(row[0])) for row in rows], sampled.problems


META = {"owner": "postgres", "acl": None, "comment": None}
TIME = datetime(2026, 1, 2, tzinfo=UTC)
BEFORE = TIME - timedelta(seconds=9)
LOADED = Objects(50, BEFORE, 1)


def _sample(at: int, time: datetime, *there: int) -> list[bytes]:
    return [
        sample.begun(sample.Begun(at, time, len(there))), sample.told(9, META),
        sample.runs([(oid, 1) for oid in there]), sample.ended(),
    ]  # fmt: skip


@newest
def test_a_sample_counts_where_it_is_whole_and_of_its_time(postgres: PostgresServer) -> None:
    now = TIME - timedelta(seconds=1)
    taken = (Objects(60, now, 1), [9], ())
    assert _taken(postgres, _sample(60, now, 9), LOADED, 60) == taken
    for frames, objects, whole in (
        (_sample(60, now, 9), LOADED, 59),  # it was given up half way
        (_sample(60, TIME + timedelta(seconds=1), 9), LOADED, 60),  # after the moment
        (_sample(49, now, 9), LOADED, 49),  # before the backup
        (_sample(60, now, 9), LOADED._replace(after=None), 60),  # some were left out
    ):
        assert _taken(postgres, frames, objects, whole) == (objects, [7], ())


@newest
def test_a_sample_that_does_not_fit_is_told(postgres: PostgresServer) -> None:
    objects, there, problems = _taken(postgres, _sample(60, BEFORE, 7, 8, 9), LOADED, 60)
    assert (objects.total, there) == (3, [7, 9])
    assert [problem.path for problem in problems] == ["large object 8"]
    with pytest.raises(Damaged, match="does not name all"):
        _taken(postgres, [*_sample(60, BEFORE, 9)[:2], sample.ended()], LOADED, 60)
    broken = [_sample(60, BEFORE)[0], sample.piece(b"x")]
    with pytest.raises(Damaged, match="content of none"):
        _taken(postgres, broken, LOADED, 60)
