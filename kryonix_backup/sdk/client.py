"""
Everything that can be done with one tenant, one method per use case.

A backup is `Client.backup`, or `begin_backup`, `back_up_source` for each source and
`publish_backup`, in as many processes as one likes. A restore is `Client.restore`, or
`plan_restore`, `begin_restore`, `run_phase` for each phase and `finish_restore`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Self

from kryonix_backup.backup import run as backup_run
from kryonix_backup.backup.follow import LogReport, Pace, quiet_log
from kryonix_backup.backup.report import BackupReport
from kryonix_backup.backup.run import Session
from kryonix_backup.browse.audit_history import ShownRecord
from kryonix_backup.browse.difference import Change
from kryonix_backup.browse.listing import Listed
from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import AlreadyRunning, ConfigError, Interrupted, KryonixError, UsageError
from kryonix_backup.events import Listener, quiet
from kryonix_backup.maintenance.audit_report import AuditReport
from kryonix_backup.maintenance.report import Level, VerifyReport
from kryonix_backup.maintenance.verify import verify
from kryonix_backup.model import BackupKind, Phase, SourceName, TenantId
from kryonix_backup.repository.restorable import Restorable
from kryonix_backup.repository.snapshot import Snapshot, SourceResult
from kryonix_backup.restore import run as restore_run
from kryonix_backup.restore.plan import RestorePlan, RestoreRequest, load_plan, plan_restore
from kryonix_backup.restore.report import PhaseResult, RestoreReport
from kryonix_backup.sdk import logs
from kryonix_backup.sdk.apart import check_targets_apart
from kryonix_backup.sdk.limits import default_tier
from kryonix_backup.sdk.lock import restore_lock
from kryonix_backup.sdk.reader import Reader
from kryonix_backup.sdk.residency import check_targets, taken_over
from kryonix_backup.sdk.trail import (
    BACKUP_LOG,
    BEGUN,
    SOURCE_PREPARE,
    SOURCE_RELEASE,
    TENANT_REMOVE,
)
from kryonix_backup.sdk.wiring import (
    create_repositories,
    prepared_source,
    source_of,
    sources_ahead,
)
from kryonix_backup.settings import (
    RegionSettings,
    RootKey,
    TenantSettings,
    home_directory,
)
from kryonix_backup.sources.source import Finding

__all__ = [
    "AuditReport",
    "BackupReport",
    "Change",
    "Client",
    "Finding",
    "Level",
    "Listed",
    "LogReport",
    "PhaseResult",
    "Restorable",
    "RestorePlan",
    "RestoreReport",
    "RestoreRequest",
    "Session",
    "ShownRecord",
    "Snapshot",
    "SourceResult",
    "VerifyReport",
]

_SYSTEM = SystemClock()


class Client(Reader):
    """
    One tenant, as seen from one of its regions.

    The repository is opened when it is first needed. Every KryonixError that leaves a method
    names the tenant, and every backup, restore and verification leaves a record for the catalog.
    """

    @classmethod
    def onboard(
        cls,
        settings: TenantSettings,
        root: RootKey,
        *,
        clock: Clock = _SYSTEM,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """
        Make the tenant's repository in every region; one that is the tenant's already stays.

        Raises RepositoryExists where the tenant's key does not open what is there.
        """
        client = cls(settings, root, clock=clock, env=env)
        with client._named():
            made = create_repositories(settings, root, client._held, clock)
            client._trail.onboarded(made.values())
        client.repository = made[client._region.name]
        return client

    @classmethod
    def from_regions(
        cls,
        tenant: TenantId,
        regions: Sequence[RegionSettings],
        root: RootKey,
        *,
        clock: Clock = _SYSTEM,
        env: Mapping[str, str] | None = None,
        region: str | None = None,
    ) -> Self:
        """
        A tenant of whom only a region and the key are known.

        The other settings are those of the newest snapshot; without any they are empty. ``region``
        is where to read, by default the first one given. Raises ResidencyViolation.
        """
        env, region = os.environ if env is None else env, region or regions[0].name
        bare = TenantSettings(tenant, default_tier(env), tuple(regions), ())
        client = cls(bare, root, clock=clock, env=env, region=region)
        newest = client.newest_settings()
        if newest is None:
            return client
        with client._named():
            found = taken_over(newest, regions)
        return cls(found, root, clock=clock, env=env, region=region)  # with its own limits

    def record_removal(self) -> None:
        """Leave a record that this machine forgets the tenant."""
        with self._named():
            self._trail.record(TENANT_REMOVE)

    # ------------------------------------------------------------------ backup

    def backup(
        self,
        *,
        kind: BackupKind = BackupKind.FULL,
        sources: Sequence[str] = (),
        listener: Listener = quiet,
    ) -> BackupReport:
        """Back up these sources, or all of them, one after another, into one snapshot."""
        with self._named():
            chosen = [self.settings.source(name).name for name in dict.fromkeys(sources)]
            names = chosen or [source.name for source in self.settings.sources]
            if not names:
                raise ConfigError(
                    f"tenant {self.tenant} has no source to back up",
                    "Register the tenant with --source NAME=URL.",
                )
            sources_ahead(map(self.settings.source, names))
        session = self.begin_backup(kind)
        results = [self.back_up_source(session, name, listener) for name in names]
        return self.publish_backup(session, results)

    def begin_backup(self, kind: BackupKind) -> Session:
        """A backup under way, whose parent is the newest snapshot."""
        with self._named(), self._journal.backup(None, kind):
            session = backup_run.begin(self.repository, kind, self._clock)
            self._journal.begun(session)
            return session

    def back_up_source(
        self, session: Session, source: str, listener: Listener = quiet
    ) -> SourceResult:
        """Store one source's content; it is durable when this returns."""
        with (
            self._named(source),
            self._journal.backup(session, session.kind),
            self._held.working(),
        ):
            settings = self.settings.source(source)
            adapter = source_of(settings)
            return backup_run.back_up_source(
                self.repository, session, settings, adapter, listener, self._clock
            )

    def publish_backup(self, session: Session, results: Sequence[SourceResult]) -> BackupReport:
        """Write the snapshot: from here on the backup counts."""
        with self._named():
            with self._journal.backup(session, session.kind):
                report = backup_run.publish(
                    self.repository, session, results, self.settings, self._clock
                )
            self._journal.backed_up(report.snapshot)
        return report

    # ------------------------------------------------------------------ transaction logs

    def log_sources(self, sources: Sequence[str] = ()) -> tuple[SourceName, ...]:
        """Those of these sources, or of all, that keep a log; raises ConfigError without any."""
        with self._named():
            return tuple(logs.needed_log_sources(self.settings, sources))

    def back_up_logs(self, sources: Sequence[str] = ()) -> dict[str, LogReport]:
        """Keep what was committed by now in every source that has a log, or in these."""
        with self._named(), self._journal.backup(None, BackupKind.LOG):
            sources_ahead([self.settings.source(name) for name in sources] or self.settings.sources)
            self._trail.record(BACKUP_LOG, BEGUN)
            kept = logs.back_up_logs(self.repository, self.settings, sources, self._clock)
            self._trail.record(BACKUP_LOG, about=" ".join(kept))
            return kept

    def follow_log(
        self,
        source: str,
        *,
        every: float,
        until: Callable[[], bool],
        tell: Callable[[LogReport], None] = quiet_log,
    ) -> LogReport:
        """Keep a source's log as `follow_log` does; the catalog hears nothing of it."""
        with self._named(source), self._trail.following(source, tell) as heard:
            repository, pace = self.repository, Pace(every, until)
            return logs.follow(repository, self.settings, source, self._clock, pace, heard)

    # ------------------------------------------------------------------ sources

    def check_source(self, source: str) -> list[Finding]:
        """What of a source was looked at, and how to mend what would stop a backup or a log."""
        with self._named(source):
            return source_of(self.settings.source(source)).check()

    def prepare_source(self, source: str, *, consent: bool, dry_run: bool = False) -> list[str]:
        """
        Make a source's server keep its log; what was run, or would be.

        ``consent`` lets it change tables that lack a replica identity. Raises UsageError where
        there is nothing to prepare.
        """
        with self._named(source):
            prepared = prepared_source(self.settings.source(source))
            steps = prepared.preparation(consent)
            if not dry_run:
                with self._trail.changing(SOURCE_PREPARE, source):
                    prepared.prepare(consent)
            return steps

    def release_source(self, source: str) -> list[str]:
        """Remove every trace of `prepare_source`; what was removed. Raises as it does."""
        with self._named(source):
            prepared = prepared_source(self.settings.source(source))
            with self._trail.changing(SOURCE_RELEASE, source):
                return prepared.release()

    # ------------------------------------------------------------------ looking

    def verify(
        self,
        level: Level = Level.STRUCTURE,
        listener: Listener = quiet,
        snapshots: Sequence[str] = (),
    ) -> VerifyReport:
        """Check these snapshots, or all; damage is told in the report, not raised."""
        with self._named():
            with self._journal.verification(level.value) as run, self._held.working():
                self._trail.check()  # before hours of reading
                report = verify(self.repository, level, listener, self._clock, snapshots)
            self._journal.verified(run, report)
        return report

    def accept_audit(self, reason: str) -> AuditReport:
        """
        Go on with an audit chain that is broken or was set back, after an inquiry.

        A record names what is accepted and why; the report is of the chain after it. Raises
        UsageError without a reason.
        """
        if not reason.strip():
            raise UsageError("a reason is needed for accepting what happened to the audit chain")
        with self._named():
            self._trail.accept(reason)
        return self.verify_audit()

    # ------------------------------------------------------------------ restore

    def restore(self, request: RestoreRequest, listener: Listener = quiet) -> RestoreReport:
        """Plan a restore and carry it out; see `carry_out`."""
        with self._journal.restore(None):
            plan = self.plan_restore(request)
            self.begin_restore(plan)
        return self.carry_out(plan, listener)

    def carry_out(self, plan: RestorePlan, listener: Listener = quiet) -> RestoreReport:
        """
        Run every phase that is not done yet.

        A failure that stops the restore is raised after everything was rolled back. An interrupted
        restore is left as it is, and goes on with `resume_restore`.
        """
        try:
            for phase in Phase:
                self.run_phase(plan, phase, listener)
        except AlreadyRunning:
            raise  # the other run's work is not ours to undo
        except KeyboardInterrupt as error:
            raise self._interrupted(plan) from error
        except Exception as error:
            self._undo(plan, error)
            raise
        return self.finish_restore(plan)

    def plan_restore(self, request: RestoreRequest) -> RestorePlan:
        """What a restore would do; reads only. Raises ResidencyViolation for a target outside."""
        with self._named():
            plan = plan_restore(self.repository, request, self._clock)
            targets: dict[str, str] = {step.source: step.target for step in plan.steps}
            check_targets(self.settings, targets, self._env)
            check_targets_apart(self.settings, targets)
            return plan

    def begin_restore(self, plan: RestorePlan) -> None:
        """Write the plan into the journal: from here on the restore can be resumed."""
        with self._named(), self._locked(plan):
            self._journal.begun_restore(plan)
            restore_run.begin_restore(self.repository, plan)

    def resume_restore(self, restore: str) -> RestorePlan:
        """The plan of a restore that was begun; raises RestoreUnknown."""
        with self._named():
            return load_plan(self.repository, restore)

    def run_phase(self, plan: RestorePlan, phase: Phase, listener: Listener = quiet) -> PhaseResult:
        """Do one phase; one that is done already gives its recorded result."""
        with self._named(), self._locked(plan), self._journal.restore(plan), self._held.working():
            return restore_run.run_phase(self.repository, plan, phase, listener, self._clock)

    def finish_restore(self, plan: RestorePlan) -> RestoreReport:
        """What came of a restore, from its journal."""
        with self._named():
            report = restore_run.finish_restore(self.repository, plan)
            self._journal.restored(plan, report)
        return report

    def roll_back_restore(self, plan: RestorePlan, *, because: str | None = None) -> None:
        """Put every target back as it was before the restore; may be run again after a crash."""
        with self._named(), self._locked(plan), self._journal.rolling_back(plan, because):
            restore_run.roll_back(self.repository, plan)

    def _undo(self, plan: RestorePlan, because: Exception) -> None:
        """Undo what failed; where that fails too the operator hears of both, the cause first."""
        try:
            self.roll_back_restore(plan, because=str(because))
        except KryonixError as error:
            again = f"'kryonix rollback {self.tenant} {plan.restore}' when the cause is gone."
            if not isinstance(because, KryonixError):
                error.hint = (
                    f"This was the undoing of a restore that failed: {because}. Run {again}"
                )
                raise
            why = "" if error.message == because.message else f", as {error.message}"
            because.hint = f"{because.next_step} Undoing failed too{why}: run {again}"

    def _interrupted(self, plan: RestorePlan) -> Interrupted:
        error = Interrupted(
            f"restore {plan.restore} was stopped before its end",
            f"Go on with 'kryonix restore {self.tenant} --resume {plan.restore}', or undo it with"
            f" 'kryonix rollback {self.tenant} {plan.restore}'.",
        )
        error.tenant = self.tenant
        return error

    def _locked(self, plan: RestorePlan) -> AbstractContextManager[None]:
        return restore_lock(home_directory(self._env), plan.restore)
