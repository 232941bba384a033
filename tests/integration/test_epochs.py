"""Ten epochs over fifty snapshots, by their schedule: the oldest comes back, and all verify."""

from __future__ import annotations

from datetime import timedelta

from kryonix_backup.browse.listing import read_entry
from kryonix_backup.crypto.keys import KeyState, Purpose
from kryonix_backup.events import quiet
from kryonix_backup.maintenance.key_care import KeyCare, Schedule
from kryonix_backup.maintenance.report import Level
from kryonix_backup.maintenance.verify import verify
from kryonix_backup.repository.repository import Repository
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.repositories import (
    ACME,
    RecordingStore,
    back_up,
    key_file,
    new_repository,
)
from kryonix_backup.testing.sources import MemorySource, Thing
from tests.maintenance.conftest import data

SNAPSHOTS, EPOCHS = 50, 10
_SCHEDULE = Schedule(data_days=30, master_days=90, archive_days=365)
_STEP = timedelta(days=30 * EPOCHS / SNAPSHOTS)


def test_the_oldest_of_fifty_snapshots_comes_back_after_ten_epochs() -> None:
    store, tree = RecordingStore(), {b"kept": Thing(data(0, 50_000))}
    new_repository(store)
    contents = {}
    masters = 0
    for number in range(SNAPSHOTS):
        clock = FixedClock(NOON + number * _STEP)
        care = KeyCare(ACME, [store], key_file(7 + masters), clock)
        if _SCHEDULE.data_due(care.keyring()) <= clock.now():
            care.rotate(Purpose.DATA)
        if _SCHEDULE.master_due(care.keyring()) <= clock.now():
            masters += 1
            care.rotate_master(key_file(7 + masters))
        tree = {**tree, b"day %d" % (number % 20): Thing(data(number + 1))}
        opened = Repository.open(store, ACME, key_file(7 + masters))
        snapshot = back_up(opened, MemorySource(tree), clock=clock).snapshot
        contents[snapshot.id] = {f"files/{each.decode()}": tree[each].data for each in tree}

    assert masters == 3
    newest = KeyCare(ACME, [store], key_file(7 + masters), FixedClock()).keyring()
    epochs = [(each.epoch, each.state) for each in newest.records if each.purpose is Purpose.DATA]
    old = [(epoch, KeyState.DECRYPT_ONLY) for epoch in range(1, EPOCHS)]
    assert epochs == [*old, (EPOCHS, KeyState.ACTIVE)]
    repository = Repository.open(store, ACME, key_file(7 + masters))
    assert repository.snapshot_ids() == sorted(contents)
    for snapshot_id in (min(contents), max(contents)):
        snapshot = repository.snapshot(snapshot_id)
        for path, content in contents[snapshot_id].items():
            assert b"".join(map(bytes, read_entry(repository, snapshot, path))) == content
    assert verify(repository, Level.DATA, quiet, FixedClock()).status == "ok"
