"""A run that fails is recorded under its own id, and not when it goes on elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kryonix_backup.backup.run import Session
from kryonix_backup.browse.audit_history import newest_records
from kryonix_backup.catalog.outbox import Outbox
from kryonix_backup.catalog.record import RunRecord
from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import AlreadyRunning, StoreUnavailable
from kryonix_backup.model import BackupKind, SnapshotId, TenantId
from kryonix_backup.sdk.journal import RunJournal
from kryonix_backup.sdk.trail import Trail
from kryonix_backup.testing.repositories import new_repository

STARTED = datetime(2026, 11, 23, 12, tzinfo=UTC)
SESSION = Session(
    SnapshotId("20261123t120000z-0011223344556677"),
    TenantId("acme"),
    BackupKind.FULL,
    None,
    STARTED,
)


class Journal:
    def __init__(self, directory: Path) -> None:
        self.outbox = Outbox(directory)
        self.repository = new_repository()
        env = {"KRYONIX_HOME": str(directory / "home")}
        trail = Trail(TenantId("acme"), env, SystemClock(), lambda: self.repository)
        self.journal = RunJournal(TenantId("acme"), self.outbox, SystemClock(), trail)

    def runs(self) -> list[RunRecord]:
        return [letter.run for letter in self.outbox.letters()]

    def chain(self) -> list[tuple[str, str, str]]:
        found = newest_records(self.repository.audit(), 9, None, None)
        deeds = [each.record.deed for each in found]
        return [(deed.action, deed.object, deed.result) for deed in deeds]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def test_a_step_that_goes_well_is_not_recorded(journal: Journal) -> None:
    with journal.journal.backup(SESSION, BackupKind.FULL):
        pass

    assert journal.runs() == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreUnavailable("cut off"), "failed"), (KeyboardInterrupt(), "interrupted"),
     (ZeroDivisionError(), "failed")],
)  # fmt: skip
def test_a_failed_step_is_recorded_under_the_backups_id(
    journal: Journal, error: BaseException, status: str
) -> None:
    with (
        pytest.raises(type(error)),
        journal.journal.backup(SESSION, BackupKind.FULL),
    ):
        raise error

    (run,) = journal.runs()
    assert (run.run, run.operation, run.kind) == (SESSION.snapshot, "backup", "full")
    assert (run.status, run.started) == (status, STARTED)
    assert run.error == (str(error) or type(error).__name__)
    result = "Interrupted" if status == "interrupted" else type(error).__name__
    assert journal.chain() == [("backup", SESSION.snapshot, result)]


def test_a_backup_that_cannot_begin_has_an_id_too(journal: Journal) -> None:
    with (
        pytest.raises(StoreUnavailable),
        journal.journal.backup(None, BackupKind.INCREMENTAL),
    ):
        raise StoreUnavailable("cut off")

    (run,) = journal.runs()
    assert run.run
    assert run.kind == "incremental"


def test_what_goes_on_elsewhere_is_no_failure(journal: Journal) -> None:
    with pytest.raises(AlreadyRunning), journal.journal.restore(None):
        raise AlreadyRunning("another run is at it")

    assert journal.runs() == []
    assert journal.chain() == []


def test_a_verification_that_fails_is_recorded(journal: Journal) -> None:
    with pytest.raises(StoreUnavailable), journal.journal.verification("data") as run:
        raise StoreUnavailable("cut off")

    (record,) = journal.runs()
    assert (record.run, record.operation, record.kind) == (run.id, "verify", "data")
