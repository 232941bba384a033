"""A database's server crashes, fails over, is put back or refuses: nothing is lost unsaid."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kryonix_backup.errors import (
    SourceDenied,
    SourceUnavailable,
    TimeUnreachable,
)
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, start_standby
from tests.integration.followed import DB, Acme
from tests.services.postgres import VERSIONS

pytestmark = pytest.mark.service

OLD, NEW = VERSIONS[0], VERSIONS[-1]


def _wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# ---------------------------------------------------------------------- fail-over


def _failed_over(acme: Acme, standby: PostgresServer) -> None:
    """The primary dies, when the standby has everything, and the standby takes its place."""
    primary = acme.server
    ((place,),) = acme.run("select pg_current_wal_flush_lsn()::text")
    caught_up = f"select pg_last_wal_replay_lsn() >= '{place}'"
    acme.server = standby
    _wait_for(lambda: acme.run(caught_up) == [(True,)])
    primary.stop(signal.SIGQUIT)
    acme.run("select pg_promote()")


def test_a_promoted_standby_with_the_slot_goes_on_with_the_chain(tmp_path: Path) -> None:
    with start_postgres(NEW) as primary:
        acme = Acme(primary, tmp_path / "repository")
        acme.begin()
        with start_standby(primary, {"sync_replication_slots": "on"}) as standby:
            acme.run("alter system set synchronized_standby_slots = 'standby'")
            acme.run("select pg_reload_conf()", "insert into t values (1, 'kept')")
            acme.drain()
            acme.server = standby
            _wait_for(lambda: acme.run(
                "select 1 from pg_replication_slots where synced and not temporary"
            ))  # fmt: skip

            _check_standby(acme)

            acme.server = primary
            acme.run("insert into t values (2, 'not fetched')")
            _failed_over(acme, standby)
            acme.run("insert into t values (3, 'after')", "create table u (a int primary key)")
            at = acme.now()
            acme.run("insert into u values (1)")
            report = acme.drain()

            assert (report.gap, report.broken, acme.whole()) == (None, (), True)
            assert acme.kept() == ["I t 1,kept", "I t 2,not fetched", "I t 3,after", "I u 1"]
            assert {header.meta["timeline"] for header in acme.headers()} == {1, 2}
            then = acme.restored(at)
            assert len(acme.run("select 1 from t", database=then)) == 3
            assert acme.run("select 1 from u", database=then) == []


def _check_standby(acme: Acme) -> None:
    (failed,) = [each for each in acme.client.check_source(DB) if not each.passed]
    assert failed.what == "log: primary"
    assert "the server is a standby" in failed.evidence
    assert "Name the primary in the source's address, or promote" in failed.mend
    before = acme.headers()
    for refused in (acme.drain, lambda: acme.client.prepare_source(DB, consent=True),
                    lambda: acme.client.release_source(DB)):  # fmt: skip
        with pytest.raises(SourceUnavailable, match="the server is a standby"):
            refused()
    assert acme.headers() == before


def test_a_promoted_standby_without_the_slot_begins_a_new_chain_and_tells_the_gap(
    tmp_path: Path,
) -> None:
    with start_postgres(OLD) as primary:
        acme = Acme(primary, tmp_path / "repository")
        acme.begin()
        with start_standby(primary) as standby:
            acme.run("insert into t values (1, 'kept')")
            before = acme.drain()
            lost_at = acme.now()
            acme.run("insert into t values (2, 'not fetched')")
            _failed_over(acme, standby)
            report = acme.drain()
            acme.client.backup()
            acme.run("insert into t values (3, 'after')")
            at = acme.now()
            acme.run("select pg_logical_emit_message(true, 'a', 'later')")
            after = acme.drain()

            assert before.restorable is not None
            assert report.gap is not None
            assert report.gap["gap_from"] == before.restorable.isoformat()
            assert f"slot {acme.slot} is gone" in report.gap["reason"]
            assert report.needs_full
            assert (after.gap, after.chain) == (None, report.chain)
            assert acme.kept() == ["I t 1,kept", "I t 3,after"]
            then = acme.restored(at)
            assert len(acme.run("select 1 from t", database=then)) == 3
            with pytest.raises(TimeUnreachable, match="does not reach"):
                acme.restored(lost_at, "lost")


# ---------------------------------------------------------------------- crash, and put back


def test_after_a_crash_what_the_server_forgot_is_kept_once(tmp_path: Path) -> None:
    with start_postgres(NEW) as server:
        acme = Acme(server, tmp_path / "repository")
        acme.begin()
        acme.run("insert into t values (1, 'x')", "checkpoint")
        acme.drain()
        acme.run("insert into t values (2, 'y')")
        acme.drain()
        before = acme.confirmed()
        server.stop(signal.SIGQUIT)
        server.start()
        went_back = acme.confirmed()
        acme.run("insert into t values (3, 'z')")
        report = acme.drain()

        assert went_back < before
        assert (report.gap, acme.whole()) == (None, True)
        assert acme.kept() == ["I t 1,x", "I t 2,y", "I t 3,z"]


def test_a_server_that_was_put_back_is_known_though_its_log_grew_beyond(tmp_path: Path) -> None:
    """By a copy of its files, on the same timeline: only the log itself can tell."""
    with start_postgres(NEW) as server:
        acme = Acme(server, tmp_path / "repository")
        acme.begin()
        server.stop()
        shutil.copytree(server.data, server.folder / "copy")
        _own(server.folder / "copy", server.data)
        server.start()
        acme.run("insert into t values (1, 'undone')")
        acme.drain()
        server.stop()
        shutil.rmtree(server.data)
        (server.folder / "copy").rename(server.data)
        server.start()
        acme.run("insert into t select g, repeat('x', 99) from generate_series(2, 3000) g")
        assert acme.run(f"select pg_current_wal_lsn() - '0/0' > {acme.headers()[-1].end}") == [
            (True,)
        ]

        report = acme.drain()

        assert report.gap is not None
        assert "was put back to an earlier state" in report.gap["reason"]
        acme.client.backup()
        at = acme.now()
        acme.run("insert into t values (5000, 'later')")
        assert acme.drain().gap is None
        then = acme.restored(at)
        assert acme.run("select count(*), min(a) from t", database=then) == [(2999, 2)]


def _own(copied: Path, like: Path) -> None:
    owner = like.stat()
    for path in (copied, *copied.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)


# ---------------------------------------------------------------------- slots and databases


def test_a_slot_that_kept_too_much_is_lost_and_told(tmp_path: Path) -> None:
    with start_postgres(NEW, {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB",
                              "max_wal_size": "32MB"}) as server:  # fmt: skip
        acme = Acme(server, tmp_path / "repository")
        acme.begin()
        before = acme.drain()
        for number in range(4):
            acme.run(f"insert into t values ({number}, 'lost')", "select pg_switch_wal()")
            acme.run("checkpoint")
        (slot,) = [each for each in acme.client.check_source(DB) if each.what == "log: slot"]
        report = acme.drain()
        acme.run("insert into t values (9, 'after')")
        acme.drain()

        assert "is lost" in slot.evidence
        assert before.restorable is not None
        assert report.gap is not None
        assert report.gap["gap_from"] == before.restorable.isoformat()
        assert "given up" in report.gap["reason"]
        assert acme.kept() == ["I t 9,after"]
        assert not [each for each in acme.client.check_source(DB) if not each.passed]


def test_a_database_that_was_dropped_and_made_anew_is_another_one(tmp_path: Path) -> None:
    with start_postgres(NEW) as server:
        acme = Acme(server, tmp_path / "repository")
        acme.begin()
        acme.run("drop database acme", "create database acme", database="postgres")

        assert acme.run("select 1 from pg_replication_slots") == []
        acme.run("create table t (a int primary key, b text)", "insert into t values (1, 'lost')")
        report = acme.drain()
        acme.run("insert into t values (2, 'after')")
        acme.drain()
        assert report.gap is not None
        assert "is gone" in report.gap["reason"]
        assert report.needs_full
        assert acme.kept() == ["I t 2,after"]


def test_a_database_that_was_prepared_anew_needs_no_other_full_than_the_one_after(
    tmp_path: Path,
) -> None:
    """As the runbook has it after a restore in place: prepare, then back up."""
    with start_postgres(NEW) as server:
        acme = Acme(server, tmp_path / "repository")
        acme.begin()
        acme.run("drop database acme", "create database acme", database="postgres")
        acme.run("create table t (a int primary key)", "insert into t values (1)")
        acme.client.prepare_source(DB, consent=False)
        acme.client.backup()
        acme.run("insert into t values (2)")
        at = acme.now()
        acme.run("insert into t values (3)")
        report = acme.drain()

        assert report.gap is not None
        assert "another database of the same name" in report.gap["reason"]
        assert acme.run("select a from t", database=acme.restored(at)) == [(1,), (2,)]


# ---------------------------------------------------------------------- rights


def test_rights_that_are_taken_away_lose_nothing(tmp_path: Path) -> None:
    with start_postgres(NEW) as server:
        Acme(server, tmp_path / "repository").begin()
        acme = Acme(server, tmp_path / "repository", user="follower")
        acme.run(
            "create role follower login replication password 'old'",
            "grant pg_read_all_data to follower",
            "create sequence s",
        )
        acme.drain()
        taken = {
            "revoke pg_read_all_data from follower": "grant pg_read_all_data to follower",
            "alter role follower noreplication": "alter role follower replication",
            "revoke connect on database acme from public": "grant connect on database acme to"
            " follower",
            "alter role follower nologin": "alter role follower login",
        }
        for number, (take, give) in enumerate(taken.items()):
            acme.run(take, f"insert into t values ({number}, 'x')")
            with pytest.raises(SourceDenied, match=r"follower|acme") as refused:
                acme.drain()
            assert "old" not in refused.value.message
            acme.run(give)
            report = acme.drain()
            assert report.gap is None

        assert acme.whole()
        assert acme.kept() == [f"I t {number},x" for number in range(len(taken))]
