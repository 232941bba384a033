"""What the server commits comes out of its stream once, in segments that can be read alone."""

from __future__ import annotations

import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from kryonix_backup.errors import AlreadyRunning, LogBroken, SourceUnavailable
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions
from tests.services.postgres import new_database
from tests.sources.postgres.log import Followed, changes, segments

pytestmark = pytest.mark.service


def _slot(followed: Followed) -> tuple[bool, int]:
    ((active, confirmed),) = followed.run(
        "select active, confirmed_flush_lsn - '0/0' from pg_replication_slots"
        f" where slot_name = '{followed.slot}'"
    )
    return active, int(confirmed)


def test_a_segment_holds_what_was_done(followed: Followed) -> None:
    before = datetime.now(UTC)
    followed.run(
        "insert into t values (1, 'x'), (2, null)",
        "update t set b = 'y' where a = 2",
        "delete from t where a = 1",
        "truncate t",
    )
    (piece,) = followed.drain()

    assert list(changes(piece.body)) == ["I t 1,x", "I t 2,null", "U t 2,y", "D t 1,null", "T t"]
    header = piece.header
    assert header is not None
    assert (header.number, header.start, header.broken) == (1, followed.opening.end, "")
    assert (header.commits, header.changes) == (5, 5)  # the beat's too
    assert header.first is not None
    assert header.last is not None
    assert before - timedelta(seconds=5) < header.first < header.last
    assert header.restorable == header.last - timedelta(microseconds=1)
    assert _slot(followed) == (False, header.end)


def test_each_segment_goes_on_where_the_last_one_ended_and_can_be_read_alone(
    followed: Followed,
) -> None:
    followed.run("create type mood as enum ('sad', 'happy')", "alter table t add c mood")
    with followed.log.follow(followed.opening, followed.last) as stream:
        pieces, said = [], iter(("sad", "happy", "sad"))
        rounds = 0

        def until() -> bool:
            return rounds == 3

        followed.run(f"insert into t values (0, '', '{next(said)}')")
        for piece in stream.pieces(until, 0.3):
            pieces.append(piece)
            rounds += 1
            if rounds < 3:
                followed.run(f"insert into t values ({rounds}, '', '{next(said)}')")

    found = list(segments(pieces))
    assert [list(changes(body)) for _, body in found] == [
        ["I t 0,,sad"], ["I t 1,,happy"], ["I t 2,,sad"], [],
    ]  # fmt: skip
    headers = [header for header, _ in found]
    assert [header.start for header in headers[1:]] == [header.end for header in headers[:-1]]
    known = [header.restorable for header in headers]
    assert known == [header.last and header.last - timedelta(microseconds=1) for header in headers]


def test_an_idle_database_gives_a_beat_per_segment(followed: Followed) -> None:
    followed.drain()
    (piece,) = followed.drain()

    assert piece.header is not None
    assert (piece.header.commits, piece.header.changes) == (1, 0)
    assert piece.header.restorable is not None
    assert followed.rows() == []


def test_what_was_not_confirmed_comes_again_and_what_is_kept_does_not(followed: Followed) -> None:
    followed.run("insert into t values (1, 'x')")
    lost = followed.last
    followed.drain(confirm=False)
    followed.run("insert into t values (2, 'y')")
    followed.drain(confirm=False)
    assert followed.rows() == ["I t 1,x", "I t 2,y"]

    followed.kept.clear()
    followed.last = lost  # as if the segments had never been stored
    followed.drain()
    assert followed.rows() == ["I t 1,x", "I t 2,y"]
    followed.last = lost  # and as if the last one had been taken away once it was confirmed
    with pytest.raises(LogBroken, match="moved on"):
        followed.drain()


def test_a_transaction_too_long_for_memory_comes_in_parts(postgres: PostgresServer) -> None:
    followed = Followed(postgres, new_database(postgres), most_bytes=1 << 20)
    followed.run(
        "insert into t values (-1, 'before')",
        "insert into t select g, 'row' || g from generate_series(1, 300000) g",
        "insert into t values (-2, 'after')",
    )
    pieces = followed.drain()

    assert len(pieces) > 5
    assert max(len(piece.body) for piece in pieces) < (2 << 20) + 1000
    rows = followed.rows()
    assert (rows[0], rows[-1]) == ("I t -1,before", "I t -2,after")
    assert rows[1:-1] == [f"I t {n},row{n}" for n in range(1, 300_001)]
    assert followed.last.restorable is not None
    ends = [header for header, _ in followed.kept]
    assert [header.start for header in ends[1:]] == [header.end for header in ends[:-1]]
    assert sum(header.changes for header in ends) == 300_002


def test_a_backlog_is_cut_into_segments(postgres: PostgresServer) -> None:
    followed = Followed(postgres, new_database(postgres), most_bytes=1 << 14)
    with postgres.connect(followed.database) as connection:
        for number in range(400):
            connection.execute("insert into t values (%s, repeat('x', 100))", (number,))
    followed.drain()

    assert len(followed.kept) > 3
    assert [row.split(",")[0] for row in followed.rows()] == [f"I t {n}" for n in range(400)]
    assert followed.last.restorable is not None


def test_a_change_that_cannot_be_repeated_marks_its_segment(followed: Followed) -> None:
    followed.run("do $$ begin create table u (a int primary key); end $$")
    followed.drain()
    followed.run("create table v (a int primary key)", "insert into v values (1)")
    followed.drain()

    (one, two) = [header for header, _ in followed.kept]
    assert one.broken.startswith("CREATE TABLE: it ran inside")
    assert one.last is not None
    assert datetime.fromisoformat(one.meta["broken_at"]) <= one.last
    assert two.broken == ""
    assert followed.rows() == ["I v 1"]


def test_who_follows_second_is_told(followed: Followed) -> None:
    with (
        followed.log.follow(followed.opening, followed.last),
        pytest.raises(AlreadyRunning, match="another process follows"),
        followed.log.follow(followed.opening, followed.last),
    ):
        pass
    followed.drain()  # and the first one has left


def test_a_slot_that_is_gone_breaks_the_log(followed: Followed) -> None:
    followed.drain()
    followed.run(f"select pg_drop_replication_slot('{followed.slot}')")
    assert followed.last.restorable is not None
    since = followed.last.restorable.isoformat()
    with pytest.raises(LogBroken, match="is gone") as caught:
        followed.drain()
    assert since in caught.value.message

    followed.anew()
    followed.run("insert into t values (1, 'x')")
    followed.drain()
    assert followed.rows() == ["I t 1,x"]


def test_a_publication_that_goes_while_it_is_followed_breaks_the_log(followed: Followed) -> None:
    """With our triggers off, as a superuser may have them: PostgreSQL 18 would only warn."""
    with followed.log.follow(followed.opening, followed.last) as stream:
        pieces = stream.pieces(lambda: False, 0.5)
        next(pieces)
        followed.run(
            "set event_triggers = off" if followed.server.major > 16 else "select 1",
            f"drop publication {followed.slot}",
            "insert into t values (1, 'lost')",
            f"create publication {followed.slot} for all tables",
        )
        with pytest.raises(LogBroken, match="publication"):
            list(pieces)
    with pytest.raises(LogBroken, match="made anew"):
        followed.drain()
    followed.anew()
    followed.drain()


def test_a_server_that_crashes_can_be_followed_on() -> None:
    for version in versions():
        with start_postgres(version) as server:
            followed = Followed(server, "postgres")
            followed.run("insert into t values (1, 'x')")
            followed.drain()
            with followed.log.follow(followed.opening, followed.last) as stream:
                followed.run("insert into t values (2, 'y')")
                server.stop(signal.SIGQUIT)
                with pytest.raises(SourceUnavailable):
                    list(stream.pieces(lambda: False, 60.0))
            with pytest.raises(SourceUnavailable):
                followed.drain()
            server.start()
            followed.run("insert into t values (3, 'z')")
            followed.drain()

            assert followed.rows() == ["I t 1,x", "I t 2,y", "I t 3,z"]


def test_a_server_shuts_down_while_it_is_followed() -> None:
    """One that waits for its log to be received would wait for ever for an idle follower."""
    for version in versions():
        with start_postgres(version) as server:
            followed = Followed(server, "postgres")
            with followed.log.follow(followed.opening, followed.last) as stream:
                pieces = stream.pieces(lambda: False, 0.3)
                next(pieces)
                followed.run("insert into t values (1, 'x')")
                stopping = threading.Thread(target=server.stop)
                started = time.monotonic()
                stopping.start()
                with pytest.raises(SourceUnavailable):
                    list(pieces)
            stopping.join()
            assert time.monotonic() - started < 20
            server.start()
            followed.drain()

            assert followed.rows() == ["I t 1,x"]
