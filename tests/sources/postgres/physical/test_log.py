"""The WAL comes out of its stream byte by byte, once and without a gap."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from kryonix_backup.errors import AlreadyRunning, LogBroken, SourceUnavailable
from kryonix_backup.sources.postgres.physical.log import log_of
from kryonix_backup.testing.postgres import start_postgres, versions
from tests.sources.postgres.physical.owned import Followed, Owned, copied

pytestmark = pytest.mark.service


def _is_whole(followed: Followed) -> bool:
    """Whether what was kept is the server's own WAL, from the beginning to where it ends."""
    headers = [header for header, _ in followed.kept]
    contiguous = all(before.end == after.start for before, after in pairwise(headers))
    return contiguous and _wal(followed) == b"".join(body for _, body in followed.kept)


def _wal(followed: Followed) -> bytes:
    """The same stretch out of the server's files."""
    start, end = followed.kept[0][0].start, followed.kept[-1][0].end
    names = sorted((followed.owned.server.data / "pg_wal").glob("0" * 7 + "1*"))
    first = int(names[0].name[8:16], 16) * (1 << 32) + int(names[0].name[16:], 16) * (1 << 24)
    raw = b"".join(name.read_bytes() for name in names)
    return raw[start - first : end - first]


def _status(owned: Owned) -> str:
    ((status,),) = owned.run("select wal_status from pg_replication_slots")
    return str(status)


def test_a_segment_holds_the_servers_own_bytes(owned: Owned) -> None:
    followed = Followed(owned)
    before = owned.now()
    owned.run("insert into t select g, 'x' from generate_series(1, 1000) g")
    (piece,) = followed.drain()
    header = piece.header

    assert header is not None
    assert header.start == followed.opening.end
    assert header.start % (1 << 24) == 0
    assert header.end - header.start == len(piece.body)
    assert header.restorable is not None
    assert before < header.restorable < owned.now()
    assert _is_whole(followed)


def test_each_segment_goes_on_where_the_last_one_ended(older: Owned) -> None:
    followed = Followed(older, most_bytes=1 << 20)
    for a in range(3):
        older.run(
            f"insert into t select {a} * 10000 + g, repeat('x', 200)"
            " from generate_series(1, 6000) g"
        )
        followed.drain()

    assert len(followed.kept) > 6
    assert _is_whole(followed)
    ends = [header.restorable for header, _ in followed.kept]
    assert ends.count(None) == len(ends) - 3


def test_an_idle_cluster_goes_on_in_time(owned: Owned) -> None:
    followed = Followed(owned)
    followed.drain()
    with followed.log.follow(followed.opening, followed.last) as stream:
        times: list[datetime] = []
        for piece in stream.pieces(lambda: len(times) == 2, 0.2):
            assert piece.header is not None
            assert piece.header.restorable is not None
            times.append(piece.header.restorable)

    assert len(times) == 3
    assert times[1] - times[0] > timedelta(seconds=0.1)
    assert owned.now() - times[-1] < timedelta(seconds=10)


def test_what_was_not_confirmed_comes_again_and_what_is_kept_does_not(owned: Owned) -> None:
    followed = Followed(owned)
    owned.run("insert into t values (1, 'x')")
    stored = followed.last
    followed.drain(confirm=False)
    lost = followed.kept.pop()
    followed.last = stored  # stopped before the segment was stored
    followed.drain(confirm=False)  # stopped before it was confirmed
    assert followed.kept[0][1][: len(lost[1])] == lost[1]
    owned.run("insert into t values (2, 'y')")
    followed.drain()
    followed.drain()

    assert _is_whole(followed)


def test_the_server_keeps_the_last_page_that_was_confirmed(owned: Owned) -> None:
    followed = Followed(owned)
    (piece,) = followed.drain()

    assert piece.header is not None
    assert 0 < piece.header.end - followed.slot() <= 8192


def test_one_at_a_time_follows_a_log(owned: Owned) -> None:
    followed = Followed(owned)
    with (
        followed.log.follow(followed.opening, followed.last),
        pytest.raises(AlreadyRunning, match="is read by process"),
    ):
        followed.drain()
    followed.drain()


def test_a_slot_that_is_gone_or_lost_is_a_gap(owned: Owned) -> None:
    followed = Followed(owned)
    followed.drain()
    owned.drop_slot()
    with pytest.raises(LogBroken, match="slot kryonix_physical is gone"):
        followed.drain()

    followed.opening = followed.last = followed.begin(renew=True)
    owned.run("alter system set max_slot_wal_keep_size = '1MB'", "select pg_reload_conf()")
    try:
        while _status(owned) != "lost":
            owned.run("insert into t values (1, 'x'), (2, 'x')", "delete from t",
                      "select pg_switch_wal()", "checkpoint")  # fmt: skip
        with pytest.raises(LogBroken, match="given up"):
            followed.drain()
        followed.opening = followed.last = followed.begin()  # a lost one is made anew
        followed.drain()
    finally:
        owned.run("alter system reset max_slot_wal_keep_size", "select pg_reload_conf()")


def test_another_server_and_a_promoted_one_are_gaps(owned: Owned) -> None:
    followed = Followed(owned)
    followed.drain()
    meta = followed.opening.meta
    followed.opening = followed.opening._replace(meta={**meta, "system": "1"})
    with pytest.raises(LogBroken, match="another server"):
        followed.drain()
    followed.opening = followed.opening._replace(meta={**meta, "timeline": 2})
    with pytest.raises(LogBroken, match="promoted"):
        followed.drain()


def test_a_server_that_was_put_back_is_a_gap_even_when_it_has_gone_on() -> None:
    with start_postgres(versions()[-1]) as server:
        owned = Owned(server)
        owned.run("create table t (a int)")
        followed = Followed(owned)
        owned.run("insert into t values (1)")
        followed.drain()
        server.stop()
        copied(server.data, server.folder / "before")
        server.start()
        owned.run("insert into t select generate_series(1, 20)")
        followed.drain()
        server.stop()
        server.data.rename(server.folder / "after")
        (server.folder / "before").rename(server.data)
        server.start()
        with pytest.raises(LogBroken, match="put back to an earlier state"):
            followed.drain()
        owned.run("insert into t select generate_series(1, 3000)")
        with pytest.raises(LogBroken, match="and has gone on from there"):
            followed.drain()


def test_a_server_that_is_killed_or_stopped_is_passing_and_nothing_is_lost() -> None:
    with start_postgres(versions()[0]) as server:
        owned = Owned(server)
        owned.run("create table t (a int)")
        followed = Followed(owned)
        for sign in (signal.SIGQUIT, signal.SIGINT):
            owned.run("insert into t values (1)")
            with followed.log.follow(followed.opening, followed.last) as stream:
                pieces = stream.pieces(lambda: False, 0.1)
                followed.keep(itertools.islice(pieces, 1))
                started = time.monotonic()
                stopping = threading.Thread(target=server.stop, args=(sign,))
                stopping.start()
                with pytest.raises(SourceUnavailable):
                    followed.keep(pieces)
            stopping.join()
            assert time.monotonic() - started < 20
            server.start()
            followed.drain()
        assert _is_whole(followed)


def test_a_log_is_of_a_server_and_a_timeline() -> None:
    assert log_of("7", 1) != log_of("7", 2)
