"""A cluster comes back as it was at any moment, from full and incremental backups and its log."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kryonix_backup.errors import (
    ConfigError,
    InvalidUrl,
    SourceMissing,
    SourceUnprepared,
    TimeUnreachable,
)
from kryonix_backup.model import Entry, SourceName
from kryonix_backup.restore.plan import RestoreRequest
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.postgres.physical.cluster import PART, PhysicalSource
from kryonix_backup.sources.source import LogSource, PreparedSource, Reader
from kryonix_backup.testing.sources import items_of
from tests.sources.postgres.physical.owned import Owned

pytestmark = pytest.mark.service

_COMMIT = re.compile(r"tx: +(\d+),.* COMMIT (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC")
MICROSECOND = timedelta(microseconds=1)


def _load(owned: Owned, first: int, count: int) -> None:
    with owned.server.connect() as connection:
        for a in range(first, first + count):
            connection.execute("insert into t values (%s, repeat('x', 50))", (a,))


def _commits(owned: Owned) -> list[tuple[int, datetime]]:
    """Every commit by transaction and time, in the order of the WAL, by PostgreSQL's own tool."""
    names = sorted(path for path in (owned.server.data / "pg_wal").iterdir() if path.is_file())
    said = subprocess.run(
        [owned.server.programs / "pg_waldump", "--rmgr=Transaction", names[0], names[-1]],
        capture_output=True, text=True, check=False, env={"TZ": "UTC"},
    ).stdout  # fmt: skip
    return [
        (int(xid), datetime.fromisoformat(moment).replace(tzinfo=UTC))
        for xid, moment in _COMMIT.findall(said)
    ]


def _truth(owned: Owned, until: datetime) -> list[int]:
    """What t held when the first transaction after that moment was committed."""
    before: set[int] = set()
    for xid, moment in _commits(owned):
        if moment > until:
            break
        before.add(xid)
    rows = owned.run("select a, xmin::text::int8 from t order by a")
    return [a for a, xid in rows if xid in before]


def test_a_cluster_comes_back_as_it_was_at_a_microsecond(owned: Owned) -> None:
    owned.prepare()
    owned.client.back_up_logs()
    _load(owned, 0, 50)
    full = owned.backup()
    _load(owned, 100, 50)
    incremental = owned.backup("incremental")
    threads = [threading.Thread(target=_load, args=(owned, n * 1000, 100)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owned.client.back_up_logs()
    moment = owned.committed(2050)

    assert incremental.entries_unchanged > full.entries * 0.7  # directories have no content
    assert incremental.bytes_read < full.bytes_read
    assert 2050 in _truth(owned, moment)
    assert owned.restored_rows(at=moment) == _truth(owned, moment)
    earlier = _truth(owned, moment - MICROSECOND)
    assert 2050 not in earlier
    assert owned.restored_rows(at=moment - MICROSECOND) == earlier


def test_incremental_backups_come_back_with_those_that_they_need(
    owned: Owned, tmp_path: Path
) -> None:
    _load(owned, 0, 10)
    owned.backup()
    _load(owned, 10, 10)
    owned.backup("incremental")
    owned.run("delete from t where a < 5")
    owned.backup("incremental")
    _load(owned, 20, 10)
    last = owned.backup("incremental")
    _load(owned, 30, 10)

    assert not last.why
    assert last.position == {}  # no slot keeps a log
    assert {path.split("/")[1] for path in _listed(owned)} == {
        "full", "incremental-000002", "incremental-000003",
    }  # fmt: skip
    with owned.restored() as server:
        again = Owned(server)
        assert again.rows() == list(range(5, 30))
        _goes_on(again, tmp_path / "again")


def _goes_on(restored: Owned, work: Path) -> None:
    """What was restored is a cluster like any other, on a timeline of its own."""
    restored.anew(work, empty=False)
    restored.prepare()
    restored.client.back_up_logs()
    position = restored.backup().position
    _load(restored, 100, 2)
    restored.client.back_up_logs()

    assert position["log"].endswith("/wal/2")
    moment = restored.committed(100)
    assert restored.restored_rows(at=moment) == [*range(5, 30), 100]


def _listed(owned: Owned) -> list[str]:
    return [listed.path for listed in owned.client.ls("latest") if "/" in listed.path]


def test_an_idle_cluster_comes_back_to_any_time_that_its_log_reaches(older: Owned) -> None:
    older.prepare()
    older.client.back_up_logs()
    older.backup()
    _load(older, 0, 3)
    report = older.client.back_up_logs()["db"]

    assert report.restorable is not None
    assert older.restored_rows(at=report.restorable) == [0, 1, 2]
    to = {"db": "pgdata:///nowhere"}
    with pytest.raises(TimeUnreachable, match="does not reach"):
        older.client.plan_restore(RestoreRequest(at=report.restorable + MICROSECOND, to=to))


def test_an_old_server_gives_full_backups_and_says_so(older: Owned) -> None:
    _load(older, 0, 3)
    first = older.backup()
    again = older.backup("incremental")

    assert not first.why
    assert "PostgreSQL 15 makes none; version 17 is the first" in again.why
    assert again.bytes_new < first.bytes_new / 2  # what did not change is there already


def _summarized(owned: Owned) -> int:
    ((end,),) = owned.run("select max(end_lsn) - '0/0' from pg_available_wal_summaries()")
    return int(end or 0)


def test_without_wal_summaries_a_full_backup_is_made_and_says_why(owned: Owned) -> None:
    owned.prepare()
    end = owned.backup().position["at"]
    while _summarized(owned) < end:
        owned.run("insert into t values (1, 'x')", "delete from t", "checkpoint")
    for path in (owned.server.data / "pg_wal/summaries").iterdir():
        path.unlink()
    again = owned.backup("incremental")

    assert "WAL summaries are required" in again.why
    assert not any("incremental" in path for path in _listed(owned))
    assert again.entries_unchanged == 0


def test_an_earlier_snapshot_that_lost_a_file_is_not_gone_on_from(owned: Owned) -> None:
    owned.backup()
    since = list(_entries(owned))
    dump = owned.source.dump(PART, iter(since[:-1]))
    first = next(items_of(dump))

    assert first.entry.path == b"full"
    assert "lost a part" in dump.why[0]


def _entries(owned: Owned) -> Iterator[Entry]:
    repository = owned.client.repository
    source = repository.snapshot("latest").sources[SourceName("db")]
    return repository.tree(source.parts[0].root, repository.reader()).entries()


def test_the_databases_of_several_tenants_are_never_backed_up(owned: Owned) -> None:
    owned.prepare()
    owned.client.back_up_logs()
    owned.run("create database another")
    try:
        with pytest.raises(SourceUnprepared, match="cannot be that of one tenant"):
            owned.client.backup()
        with pytest.raises(SourceUnprepared, match="cannot be that of one tenant"):
            owned.client.back_up_logs()
    finally:
        owned.run("drop database another")


def test_a_lost_slot_begins_a_new_chain_with_its_gap(owned: Owned) -> None:
    owned.prepare()
    first = owned.client.back_up_logs()["db"]
    owned.drop_slot()
    second = owned.client.back_up_logs()["db"]

    assert second.chain > first.chain
    assert second.gap is not None
    assert second.gap["reason"].endswith("slot kryonix_physical is gone")
    assert second.needs_full


def test_the_right_to_replicate_is_enough(older: Owned) -> None:
    older.run("create role keeper login replication")
    try:
        url = older.url.replace("postgres@", "keeper@")
        source = PhysicalSource(SourceSettings(SourceName("db"), url))
        source.prepare(False)
        assert all(f.passed for f in source.check() if f.what != "log: max_slot_wal_keep_size")
        opening = source.new_chain(renew=False)
        with source.follow(opening, opening) as stream:
            assert [piece.header for piece in stream.pieces(lambda: True, 60.0)]
        items = items_of(source.dump(PART, None))
        names = [item.entry.path for item in items if item.open is None or _read(item.open())]
        assert b"full/backup_manifest" in names
        assert source.position()["at"] > opening.start
        assert source.release()
    finally:
        older.run("drop role keeper")


def _read(reader: Reader) -> bool:
    view = memoryview(bytearray(1 << 16))
    while reader.readinto(view):
        pass
    return bool(reader.close())


def test_it_is_a_source_with_a_log_that_is_prepared(owned: Owned) -> None:
    assert isinstance(owned.source, LogSource)
    assert isinstance(owned.source, PreparedSource)
    assert owned.source.parts() == (PART,)
    assert owned.source.measure(PART).bytes > 1 << 20
    assert owned.source.preparation(False)
    with pytest.raises(SourceMissing):
        owned.source.dump("database", None)


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ConfigError):
        PhysicalSource(
            SourceSettings(SourceName("db"), "postgresql+physical://u@h/", include=("a",))
        )
    with pytest.raises(InvalidUrl):
        PhysicalSource(SourceSettings(SourceName("db"), "postgresql://u@h/db"))


def test_a_running_server_is_not_restored_in_place(older: Owned) -> None:
    older.backup()

    with pytest.raises(InvalidUrl, match="in place of one") as raised:
        older.client.plan_restore(RestoreRequest())
    assert "pgdata://" in raised.value.hint
