"""Large objects are looked at when they may have changed, and not more often than is worth it."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kryonix_backup.clock import SystemClock
from kryonix_backup.sources.postgres.decoding import sample
from kryonix_backup.sources.postgres.decoding.counting import count_log
from kryonix_backup.sources.postgres.dumping.objects import Now
from kryonix_backup.sources.postgres.following.sampling import Sampler, is_due
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import start_postgres, versions
from tests.sources.postgres.log import Followed, changes, frames

pytestmark = pytest.mark.service
MIB = 1 << 20
COUNTED = "select pg_stat_force_next_flush()"


def _objects(followed: Followed) -> list[list[int]]:
    """The objects that are told in each sample that was kept."""
    found: list[list[int]] = []
    for _, body in followed.kept:
        for frame in frames(body):
            if frame[:2] == b"Ls":
                found.append([])
            if frame[:2] == b"Lo":
                found[-1].append(json.loads(frame[2:])["oid"])
    return found


def test_only_what_changed_is_told_and_only_where_anything_may_have(followed: Followed) -> None:
    followed.run("select lo_from_bytea(o, 'x') from generate_series(1, 9) o", COUNTED)
    followed.drain()
    followed.drain()  # nothing has changed
    followed.run("select lo_put(3, 5000, 'y'), lo_unlink(4), lo_create(12)", COUNTED)
    followed.drain()
    followed.run("grant select on large object 7 to public", COUNTED)
    followed.drain()
    followed.run("insert into t values (1)")
    followed.drain()

    assert _objects(followed) == [[1, 2, 3, 4, 5, 6, 7, 8, 9], [3, 12], [7]]
    assert followed.rows() == ["I t 1,null"]
    mark = followed.last.meta[sample.MARK]
    assert mark["total"] == 9
    runs = [sample.parse(frame) for _, body in followed.kept for frame in frames(body)
            if frame[:2] == b"Ll"]  # fmt: skip
    assert runs[1:] == [sample.Runs([(1, 3), (5, 5), (12, 1)])] * 2


def test_a_database_without_any_has_no_samples(followed: Followed) -> None:
    followed.run("insert into t values (1)")
    followed.drain()
    followed.drain()

    assert _objects(followed) == []


def test_a_sample_that_was_not_kept_is_taken_again(followed: Followed) -> None:
    followed.run("select lo_from_bytea(1, 'x')", COUNTED)
    followed.drain()
    followed.run("select lo_from_bytea(2, 'x')", COUNTED)
    last, kept = followed.last, list(followed.kept)
    followed.drain(confirm=False)
    assert _objects(followed) == [[1], [2]]
    followed.last, followed.kept = last, kept  # as if it had been killed
    followed.run("select lo_from_bytea(3, 'x')", COUNTED)
    followed.drain()

    assert _objects(followed) == [[1], [2, 3]]


def test_a_long_one_comes_in_pieces_of_which_those_that_stay_are_the_same(
    followed: Followed,
) -> None:
    followed.run("select lo_from_bytea(5, convert_to(repeat('0123456789abcdef', 524288), 'UTF8'))",
                 COUNTED)  # fmt: skip
    first = followed.drain()
    followed.run("select lo_put(5, 3000000, 'changed')", "insert into t values (1)", COUNTED)
    second = followed.drain()

    whole = [{piece.body for piece in pieces if len(piece.body) == MIB}
             for pieces in (first, second)]  # fmt: skip
    assert len(whole[1] - whole[0]) == 1
    assert max(len(piece.body) for piece in [*first, *second]) <= 4 * MIB
    assert [len(list(changes(body))) for _, body in followed.kept] == [0, 0, 1, 0]
    for header, body in followed.kept:
        assert count_log([body]) == (header.commits, header.changes)


def test_without_the_right_to_look_the_log_goes_on_and_that_is_told(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    followed.run("select lo_from_bytea(1, 'x')", "create role weak_looker login")
    try:
        with connected(followed.address) as connection:
            sampler = Sampler(
                connection, followed.address, SystemClock(), followed.opening, followed.slot
            )
            connection.execute("set role weak_looker")
            assert list(sampler.frames(followed.last)) == []
            assert list(sampler.frames(followed.last)) == []
            assert caplog.text.count("may not see which large objects have changed") == 1
            connection.execute("reset role; grant pg_read_all_data to weak_looker")
            connection.execute("set role weak_looker")  # it owns none, and may not read it
            assert sampler.mark is None
            assert len(list(sampler.frames(followed.last))) == 1 + 1
            assert "no sample of large objects: " in caplog.text
            assert sampler.mark is None
            assert list(sampler.frames(followed.last)) == []  # for some time
    finally:
        followed.run("drop role weak_looker")


def _now(ago: float, seen: str = "1", *, counted: bool = True) -> Now:
    time = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=ago)
    return Now(1000, 1, time, counted, seen, may_look=True, any=True, ever=True)


def test_when_a_look_is_due() -> None:
    known: dict[str, Any] = {
        "time": datetime(2026, 1, 2, tzinfo=UTC).isoformat(), "seen": "1", "took": 0.5,
    }  # fmt: skip
    assert is_due(_now(0), None)
    assert not is_due(_now(60), known)
    assert is_due(_now(300), known)  # what is counted may come late
    assert is_due(_now(60, "2"), known)
    assert is_due(_now(60, counted=False), known)
    assert is_due(_now(-60), known)  # the clock was set back
    known["took"] = 10
    assert not is_due(_now(60, "2"), known)
    assert is_due(_now(100, "2"), known)
    assert not is_due(_now(900), known)
    assert is_due(_now(1000), known)


def test_what_a_crash_has_lost_count_of_is_looked_at() -> None:
    with start_postgres(max(versions())) as server:
        followed = Followed(server, "postgres")
        followed.run("select lo_from_bytea(1, 'x'), lo_from_bytea(2, 'x')", COUNTED)
        followed.drain()
        seen = followed.last.meta[sample.MARK]["seen"]
        with server.connect() as connection:
            connection.execute("select lo_put(2, 0, 'y')")
            server.stop(signal.SIGQUIT)
        server.start()
        followed.drain()

        assert _objects(followed) == [[1, 2], [2]]
        assert followed.last.meta[sample.MARK]["seen"] != seen
