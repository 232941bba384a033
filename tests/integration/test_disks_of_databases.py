"""A log whose repository has a dead or a full disk, and a server without room for a restore."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.backup.follow import drain_log
from kryonix_backup.errors import KryonixError, StoreFull, StoreUnavailable, TargetFull
from kryonix_backup.sdk.wiring import source_of
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.source import LogSource, PreparedSource
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.faults import AnswerLost, Fault, FaultyStore
from kryonix_backup.testing.postgres import PostgresServer, start_postgres
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened
from tests.integration.disks import IS_ROOT, SmallDisk
from tests.integration.followed import DB, Acme
from tests.services.postgres import VERSIONS, new_database
from tests.sources.postgres.engine import restored
from tests.sources.postgres.log import changes

pytestmark = pytest.mark.service

NEW = VERSIONS[-1]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One server for all."""
    with start_postgres(NEW) as made:
        yield made


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """A directory that gets little room, which a server's user can get to."""
    small = SmallDisk(Path(tempfile.mkdtemp(prefix="kryonix-disk-")))
    small.path.chmod(0o755)
    yield small
    small.unmount()
    shutil.rmtree(small.path)


# What the disk does to a segment, and whether it is there afterwards.
_DEAD: tuple[tuple[Fault, bool], ...] = (
    (StoreUnavailable("input/output error"), False),
    (AnswerLost(StoreUnavailable("input/output error")), True),
    (StoreFull("no space left on device"), False),
    (StoreUnavailable("input/output error"), False),
)


def test_a_dead_disk_loses_and_repeats_nothing(server: PostgresServer, tmp_path: Path) -> None:
    acme = Acme(server, tmp_path / "unused", database=new_database(server, "dead"))
    acme.run("create table t (a int primary key, b text)")
    source = source_of(SourceSettings(DB, server.url(acme.database)))
    assert isinstance(source, PreparedSource)
    source.prepare(True)
    assert isinstance(source, LogSource)
    inner = RecordingStore()
    drain_log(new_repository(inner), DB, source, FixedClock())

    for number, (fault, is_there) in enumerate(_DEAD):
        acme.run(f"insert into t values ({number}, 'x')")
        dying = FaultyStore(inner, put=[fault])
        before = len(inner.names("logs/"))
        with pytest.raises(KryonixError, match=r"input/output error|no space left"):
            drain_log(reopened(dying), DB, source, FixedClock())
        assert len(inner.names("logs/")) == before + is_there
        book = reopened(inner).log(DB)
        ((chain, count),) = book.chains().items()
        assert acme.confirmed() <= book.header(chain, count - 1).end
    report = drain_log(reopened(inner), DB, source, FixedClock())

    ((chain, count),) = book.chains().items()
    kept = [book.segment(chain, number) for number in range(count)]
    rows = [row for _, body in kept for row in changes(b"".join(map(bytes, body)))]
    assert rows == [f"I t {number},x" for number in range(len(_DEAD))]
    assert report.gap is None
    ends = [header for header, _ in kept]
    assert [one.end for one in ends[:-1]] == [next_.start for next_ in ends[1:]]


def test_a_full_repository_stops_a_log_which_goes_on_when_there_is_room(
    server: PostgresServer, disk: SmallDisk
) -> None:
    disk.mount(8)
    acme = Acme(server, disk.path / "repository", database=new_database(server, "full"))
    acme.run("create table t (a int primary key, b text)")
    acme.client.prepare_source(DB, consent=True)
    acme.drain()
    disk.fill(leaving_mib=1)
    noise = "select string_agg(md5(random()::text), '') from generate_series(1, 30000)"
    for number in range(3):
        acme.run(f"insert into t select {number}, noise from ({noise}) s (noise) where true")
    before = acme.confirmed()

    if IS_ROOT:
        with pytest.raises(StoreFull, match="No space left"):
            acme.drain()
        assert acme.confirmed() == before
        disk.grow()
    report = acme.drain()

    assert (report.gap, acme.whole()) == (None, True)
    assert [row[:5] for row in acme.kept()] == ["I t 0", "I t 1", "I t 2"]


def test_a_server_that_fills_up_keeps_its_old_database(
    server: PostgresServer, disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = Acme(server, tmp_path / "repository", database=new_database(server, "large"))
    acme.run(
        "create table t (a int primary key, b text)",
        "alter table t alter b set storage external",
        "insert into t select g, repeat(md5(g::text), 200) from generate_series(1, 8000) g",
    )
    acme.client.backup()
    if IS_ROOT:
        disk.mount(170)
    monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
    with start_postgres(NEW, {"max_wal_size": "64MB", "min_wal_size": "32MB"}) as small:
        monkeypatch.undo()
        small.run("createdb", "kept")
        with small.connect("kept") as connection:
            connection.execute("create table u as select 7 as a")
        if IS_ROOT:
            disk.fill(leaving_mib=30)
            with pytest.raises(TargetFull, match="No space left") as full:
                restored(acme.client, small.url("kept"), overwrite=True)
            assert "Free space" in full.value.hint
        with small.connect("kept") as connection:
            assert connection.execute("select a from u").fetchall() == [(7,)]
        databases = small.run("psql", "-Atc", "select datname from pg_database order by 1")
        assert databases.split() == ["kept", "postgres", "template0", "template1"]
