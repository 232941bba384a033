"""Of the snapshots that lead to a moment the quickest is taken, and one that is not whole never."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from kryonix_backup.backup import incremental as incremental_module
from kryonix_backup.backup.follow import drain_log
from kryonix_backup.errors import ObjectMissing, SnapshotUnknown, TimeUnreachable
from kryonix_backup.model import BackupKind, ChunkId, Phase, SnapshotId
from kryonix_backup.restore import plan as plan_module
from kryonix_backup.restore.choosing import Chosen, choose, kind_of, load_of
from kryonix_backup.restore.plan import RestoreRequest, plan_restore
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.repositories import RecordingStore, back_up, new_repository
from tests.backup.logged import DB, LoggedSource


@pytest.fixture(autouse=True)
def _phases(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (incremental_module, plan_module):
        monkeypatch.setattr(module, "phase_of", lambda _: Phase.DATABASE_RESTORE)


class Tenant:
    """A transaction a second; after the second and the fourth a full and an incremental backup."""

    def __init__(self) -> None:
        self.store = RecordingStore()
        self.repository = new_repository(self.store)
        self.source = LoggedSource()
        self.clock = FixedClock(NOON + timedelta(minutes=1))
        self.drain()
        self.write(2)
        self.full = self.take(BackupKind.FULL)
        self.write(2)
        self.incremental = self.take(BackupKind.INCREMENTAL)
        self.write(2)
        self.drain()

    def write(self, count: int) -> None:
        """So many transactions."""
        for _ in range(count):
            self.source.written.append(b"%d " % len(self.source.written))

    def drain(self) -> None:
        """Keep the log."""
        drain_log(self.repository, DB, self.source, self.clock)

    def take(self, kind: BackupKind) -> SnapshotId:
        """A backup of that kind."""
        self.clock.sleep(60)
        back_up(self.repository, self.source, name="db", kind=kind, clock=self.clock)
        return self.repository.snapshot_ids()[-1]

    def choose(self, seconds: float) -> Chosen:
        """What is taken for the moment so many seconds after noon."""
        return choose(self.repository, DB, _at(seconds), Phase.DATABASE_RESTORE)

    def lose(self, snapshot: SnapshotId, path: bytes) -> None:
        """Lose the pack with the content of an entry."""
        (part,) = self.repository.snapshot(snapshot).sources[DB].parts
        reader = self.repository.reader()
        entry = next(self.repository.tree(part.root, reader).entries(path))
        found = self.repository.load_index().find(ChunkId(entry.refs[:32]))
        assert found is not None
        (name,) = [name for name in self.store.names("packs/") if name.endswith(found.pack.id)]
        del self.store.objects[name]


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
def tenant() -> Tenant:
    return Tenant()


def test_the_newest_before_the_moment_is_taken_and_the_rest_of_the_log(tenant: Tenant) -> None:
    expected = {2: (tenant.full, 1), 3.5: (tenant.full, 2), 4: (tenant.incremental, 1),
                6: (tenant.incremental, 2)}  # fmt: skip
    for seconds, (snapshot, changes) in expected.items():
        way = tenant.choose(seconds).way
        assert way.log is not None
        assert (way.snapshot.id, way.log.changes) == (snapshot, changes)
    assert kind_of(tenant.choose(6).way.source) == "incremental"


def test_it_is_said_why(tenant: Tenant) -> None:
    why = tenant.choose(6).why

    first, second = why.split("; ")
    start = f"from incremental {tenant.incremental} with 2 changes"
    assert first == f"{start} and 2 changes of the log: about 1.0 s"
    assert second.startswith(f"from full {tenant.full}")


def test_a_full_one_that_is_quicker_is_taken(tenant: Tenant) -> None:
    """Its log is not even read where that cannot be."""
    position = tenant.repository.snapshot("latest").sources[DB].position
    heavy = {**position, "folded": {**position["folded"], "changes": 10_000_000}}
    newest = tenant.repository.snapshot("latest")
    tenant.clock.sleep(60)
    again = replace(
        newest,
        id=SnapshotId("20991123t120000z-0123456789abcdef"),
        sources={DB: replace(newest.sources[DB], position=heavy)},
    )
    tenant.repository.publish(again)

    chosen = tenant.choose(6)
    assert chosen.way.snapshot.id == tenant.full
    assert chosen.way.log is not None
    assert chosen.way.log.changes == 4
    assert f"from incremental {again.id} with 10,000,000 changes" in chosen.why


def test_what_has_lost_content_is_passed_over(tenant: Tenant) -> None:
    tenant.lose(tenant.incremental, b"changes")

    chosen = tenant.choose(6)

    assert chosen.way.snapshot.id == tenant.full
    assert f"{tenant.incremental} does not lead there" in chosen.why
    assert "db/changes is missing" in chosen.why


def test_where_none_is_whole_it_is_told(tenant: Tenant) -> None:
    for name in tenant.store.names("packs/"):
        del tenant.store.objects[name]

    with pytest.raises(ObjectMissing):
        tenant.choose(6)


def test_a_moment_that_the_log_does_not_reach_is_told_of_the_newest(tenant: Tenant) -> None:
    for _ in range(5):
        tenant.take(BackupKind.FULL)

    with pytest.raises(TimeUnreachable, match="it ends at 2026-11-23T12:00:06"):
        tenant.choose(7)


def test_before_the_first_snapshot_there_is_nothing(tenant: Tenant) -> None:
    with pytest.raises(SnapshotUnknown, match="no snapshot of db is as old"):
        tenant.choose(1)


def test_each_source_of_a_plan_comes_from_the_snapshot_that_is_best_for_it(tenant: Tenant) -> None:
    plan = plan_restore(tenant.repository, RestoreRequest(at=_at(6)), tenant.clock)

    (step,) = plan.steps
    assert (plan.snapshot, step.snapshot) == (tenant.incremental, tenant.incremental)
    assert plan.estimate_s == step.estimate_s > 0
    assert plan.to_plain()["steps"][0]["why"] == step.why != ""

    tenant.lose(tenant.incremental, b"changes")
    plan = plan_restore(tenant.repository, RestoreRequest(at=_at(6)), tenant.clock)
    assert (plan.snapshot, plan.steps[0].snapshot) == (tenant.full, tenant.full)


def test_a_snapshot_that_is_named_is_taken_as_it_is(tenant: Tenant) -> None:
    plan = plan_restore(tenant.repository, RestoreRequest(), tenant.clock)

    (step,) = plan.steps
    assert (step.snapshot, step.log, step.why) == (tenant.incremental, None, "")
    source = tenant.repository.snapshot(tenant.incremental).sources[DB]
    assert load_of(source, None).folded == 2
