"""What a client's runs leave in the outbox and the audit chain, whether they went well or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from kryonix_backup.backup.run import Session
from kryonix_backup.catalog.outbox import Outbox
from kryonix_backup.catalog.record import (
    BACKUP,
    FAILED,
    INTERRUPTED,
    RESTORE,
    ROLLED_BACK,
    VERIFY,
    RunRecord,
    SnapshotRecord,
    record_of_backup,
)
from kryonix_backup.clock import Clock
from kryonix_backup.errors import AlreadyRunning
from kryonix_backup.maintenance.report import VerifyReport
from kryonix_backup.model import BackupKind, TenantId, new_run_id
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.restore.plan import RestorePlan
from kryonix_backup.restore.report import RestoreReport
from kryonix_backup.sdk.trail import BACKUP_LOG, BEGUN, ROLLBACK, Trail


@dataclass(frozen=True, slots=True)
class Run:
    """A run under way."""

    id: str
    operation: str
    kind: str
    started: datetime
    snapshot: str | None = None
    about: str = ""
    """Ids for the audit chain."""


class RunJournal:
    """
    Records one tenant's runs.

    Each context manager records its block only where it fails, under the id of the run that the
    block is a step of; when a later try of the step goes well, the run's last record counts.
    """

    def __init__(self, tenant: TenantId, outbox: Outbox, clock: Clock, trail: Trail) -> None:
        self._tenant = tenant
        self._outbox = outbox
        self._clock = clock
        self._trail = trail

    @contextmanager
    def backup(self, session: Session | None, kind: BackupKind) -> Iterator[None]:
        """A step of a backup; without a session, the one that begins it."""
        if session is None:
            run = self._new(BACKUP, kind.value)
        else:
            run = Run(session.snapshot, BACKUP, kind.value, session.started, about=session.snapshot)
        with self._failures(run):
            yield

    @contextmanager
    def restore(self, plan: RestorePlan | None) -> Iterator[None]:
        """A step of a restore; without a plan, the planning of it."""
        run = self._new(RESTORE, "") if plan is None else _restore(plan)
        with self._failures(run):
            yield

    @contextmanager
    def verification(self, level: str) -> Iterator[Run]:
        """A verification; the run is for `verified`."""
        run = self._new(VERIFY, level)
        with self._failures(run):
            yield run

    def begun(self, session: Session) -> None:
        """A backup was begun; nothing of it is stored yet."""
        self._trail.record(BACKUP, BEGUN, session.snapshot)

    def backed_up(self, snapshot: Snapshot) -> None:
        """A snapshot was published."""
        record = record_of_backup(snapshot)
        self._outbox.put(record, SnapshotRecord.of(snapshot))
        self._trail.record(BACKUP, record.status, snapshot.id)

    def verified(self, run: Run, report: VerifyReport) -> None:
        """A verification came to its end."""
        error = f"{len(report.damage)} objects are damaged" if report.damage else None
        record = self._record(run, report.status, error)
        self._outbox.put(replace(record, bytes_read=report.bytes_read, chunks=report.chunks))
        self._trail.record(VERIFY, report.status)

    def begun_restore(self, plan: RestorePlan) -> None:
        """A restore is about to begin."""
        self._trail.record(RESTORE, BEGUN, _restore(plan).about)

    def restored(self, plan: RestorePlan, report: RestoreReport) -> None:
        """A restore came to its end."""
        record = self._record(_restore(plan), report.status, None)
        brought_back = sum(phase.bytes for phase in report.phases)
        duration = round(sum(phase.duration_s for phase in report.phases), 3)
        self._outbox.put(replace(record, bytes_read=brought_back, duration_s=duration))
        self._trail.record(RESTORE, report.status, _restore(plan).about)

    @contextmanager
    def rolling_back(self, plan: RestorePlan, because: str | None) -> Iterator[None]:
        """The undoing of a restore."""
        with self._trail.changing(ROLLBACK, _restore(plan).about):
            yield
        self._outbox.put(self._record(_restore(plan), ROLLED_BACK, because))

    def _new(self, operation: str, kind: str) -> Run:
        now = self._clock.now()
        return Run(new_run_id(now), operation, kind, now)

    @contextmanager
    def _failures(self, run: Run) -> Iterator[None]:
        try:
            yield
        except AlreadyRunning:
            raise  # the run goes on elsewhere
        except BaseException as error:
            status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
            self._outbox.put(self._record(run, status, str(error) or type(error).__name__))
            action = BACKUP_LOG if run.kind == BackupKind.LOG.value else run.operation
            self._trail.failed(action, error, run.about)
            raise

    def _record(self, run: Run, status: str, error: str | None) -> RunRecord:
        now = self._clock.now()
        return RunRecord(
            run=run.id,
            tenant=self._tenant,
            operation=run.operation,
            kind=run.kind,
            status=status,
            started=run.started,
            finished=now,
            snapshot=run.snapshot,
            duration_s=round((now - run.started).total_seconds(), 3),
            error=error,
        )


def _restore(plan: RestorePlan) -> Run:
    about = f"{plan.restore} {plan.snapshot}"
    return Run(plan.restore, RESTORE, "", plan.created, plan.snapshot, about)
