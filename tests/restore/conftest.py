"""A tenant with three sources, and targets in memory in the place of real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from kryonix_backup.backup.run import back_up_source, begin, publish
from kryonix_backup.events import quiet
from kryonix_backup.model import BackupKind, EntryKind, Phase, RestoreId
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.restore import plan as plan_module
from kryonix_backup.restore import run as run_module
from kryonix_backup.restore.plan import RestorePlan, RestoreRequest, plan_restore
from kryonix_backup.restore.run import begin_restore
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.repositories import RecordingStore, new_repository, settings_of
from kryonix_backup.testing.sources import MemorySource, MemoryTarget, Thing

DIRECTORY = Thing(kind=EntryKind.DIRECTORY)
CONTENT = {
    "db": {b"table": Thing(b"rows" * 1000)},
    "cache": {b"keys": Thing(b"key")},
    "files": {
        b"": DIRECTORY,
        b"a.txt": Thing(b"a" * 3000),
        b"d": DIRECTORY,
        b"d/b.txt": Thing(b"b" * 5000),
        b"d/c.log": Thing(b"c"),
    },
}
PHASES = {
    "memory://db": Phase.DATABASE_RESTORE,
    "memory://cache": Phase.CACHE_AND_SESSION_RESTORE,
    "memory://files": Phase.FILE_STORAGE_RESTORE,
    "memory://elsewhere": Phase.FILE_STORAGE_RESTORE,
}


@dataclass
class Tenant:
    """A repository with snapshots, and the targets that its restores write to."""

    store: RecordingStore
    repository: Repository
    clock: FixedClock
    targets: dict[str, MemoryTarget] = field(default_factory=dict)

    def take(self, day: int) -> Snapshot:
        """One snapshot of every source, so many days after noon."""
        clock = FixedClock(NOON + timedelta(days=day))
        settings = settings_of(*CONTENT)
        session = begin(self.repository, BackupKind.FULL, clock)
        results = [
            back_up_source(
                self.repository, session, source, MemorySource(CONTENT[source.name]), quiet, clock
            )
            for source in settings.sources
        ]
        return publish(self.repository, session, results, settings, clock).snapshot

    def plan(self, **request: Any) -> RestorePlan:
        """A plan, already begun."""
        plan = plan_restore(self.repository, RestoreRequest(**request), self.clock)
        begin_restore(self.repository, plan)
        return plan


@pytest.fixture
def tenant(monkeypatch: pytest.MonkeyPatch) -> Tenant:
    store = RecordingStore()
    clock = FixedClock(NOON + timedelta(days=30))
    made = Tenant(store, new_repository(store), clock)
    made.take(0)
    made.targets = {url: MemoryTarget() for url in PHASES}

    def open_target(url: str, _restore: RestoreId, *, overwrite: bool) -> MemoryTarget:
        assert overwrite in (True, False)
        return made.targets[url]

    monkeypatch.setattr(run_module, "open_target", open_target)
    monkeypatch.setattr(plan_module, "phase_of", PHASES.__getitem__)
    return made
