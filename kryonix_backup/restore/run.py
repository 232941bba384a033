"""
Carrying out a restore, phase by phase.

The journal in the repository holds the plan and each phase's outcome, written before the next
phase starts, so that a second run of the same restore goes on after the last finished phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from kryonix_backup.clock import Clock
from kryonix_backup.errors import (
    AlreadyRunning,
    Damaged,
    KryonixError,
    ObjectExists,
    ValidationFailed,
)
from kryonix_backup.events import Listener, Progress
from kryonix_backup.model import Blob, Entry, Phase, Problem
from kryonix_backup.repository.repository import Repository
from kryonix_backup.restore.phases import is_critical
from kryonix_backup.restore.plan import RestorePlan, RestoreStep
from kryonix_backup.restore.report import (
    DONE,
    FAILED,
    ROLLED_BACK,
    SKIPPED,
    PhaseResult,
    RestoreReport,
    TaskResult,
    status_of,
)
from kryonix_backup.restore.selection import Selection
from kryonix_backup.sources.registry import open_target
from kryonix_backup.sources.source import Target

_TELL_EVERY_S = 0.2
_PROBLEMS_KEPT = 1000  # in a phase's record; there may be millions, and the count is told


def begin_restore(repository: Repository, plan: RestorePlan) -> None:
    """Write the plan into the journal: from here on the restore can be resumed."""
    repository.write_journal(plan.restore, 0, {"plan": plan.to_plain()})


def run_phase(
    repository: Repository, plan: RestorePlan, phase: Phase, listener: Listener, clock: Clock
) -> PhaseResult:
    """
    Do one phase and journal its outcome; one that is done already gives its recorded result.

    Raises whatever stopped a critical phase; the caller then rolls back. A failure of another
    phase is undone here, and told in the result.
    """
    history = _History.of(repository, plan)
    if history.rolled_back:
        raise ValidationFailed(
            f"restore {plan.restore} was rolled back", "Start a new restore, without --resume."
        )
    if phase in history.results:
        return history.results[phase]
    result = _Run(repository, plan, history, listener, clock).phase(phase)
    _record(repository, plan, {"phase": result.to_plain()})
    return result


def roll_back(repository: Repository, plan: RestorePlan) -> None:
    """Put every target back as it was before the restore; may be run again after a crash."""
    for step in reversed(plan.steps):
        _target(plan, step).roll_back()
    if not _History.of(repository, plan).rolled_back:
        _record(repository, plan, {"rolled_back": True})


def finish_restore(repository: Repository, plan: RestorePlan) -> RestoreReport:
    """What came of a restore, from its journal."""
    history = _History.of(repository, plan)
    phases = tuple(history.results[phase] for phase in Phase if phase in history.results)
    status = ROLLED_BACK if history.rolled_back else status_of(plan, phases)
    return RestoreReport(plan, status, phases)


class _History(NamedTuple):
    """What the journal of a restore says."""

    results: dict[Phase, PhaseResult]
    rolled_back: bool
    failed: frozenset[str]

    @classmethod
    def of(cls, repository: Repository, plan: RestorePlan) -> _History:
        records = repository.journal(plan.restore)
        done = [PhaseResult.from_plain(each["phase"]) for each in records if "phase" in each]
        return cls(
            {result.phase: result for result in done},
            any("rolled_back" in each for each in records),
            frozenset(name for result in done for name in result.failed_sources),
        )


def _record(repository: Repository, plan: RestorePlan, record: dict[str, Any]) -> None:
    try:
        repository.write_journal(plan.restore, len(repository.journal(plan.restore)), record)
    except ObjectExists as error:
        raise AlreadyRunning(f"restore {plan.restore} is being run by another process") from error


def _target(plan: RestorePlan, step: RestoreStep) -> Target:
    return open_target(step.target, plan.restore, overwrite=plan.overwrite)


class _Run:
    """One phase, being done."""

    def __init__(
        self,
        repository: Repository,
        plan: RestorePlan,
        history: _History,
        listener: Listener,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._plan = plan
        self._listener = listener
        self._clock = clock
        self._started = self._told = clock.monotonic()
        self._tasks: list[TaskResult] = []
        self._problems: list[Problem] = []
        self._bytes = 0
        self._entries = 0
        self._lost = history.failed
        self._failed_now: list[str] = []
        self._sources = repository.snapshot(plan.snapshot).sources

    def phase(self, phase: Phase) -> PhaseResult:
        """Do it."""
        if phase is Phase.INFRASTRUCTURE_PREPARATION:
            self._prepare()
        elif phase is Phase.VALIDATION_AND_FINALIZATION:
            self._finalize()
        else:
            self._apply(phase)
        status = FAILED if self._failed_now else DONE if self._tasks else SKIPPED
        problems = self._problems[:_PROBLEMS_KEPT]
        if len(self._problems) > len(problems):
            more = len(self._problems) - len(problems)
            problems.append(Problem("", f"and {more} more problems of the same phase"))
        return PhaseResult(
            phase=phase,
            status=status,
            duration_s=self._elapsed(),
            bytes=self._bytes,
            tasks=tuple(self._tasks),
            problems=tuple(problems),
            failed_sources=tuple(self._failed_now),
        )

    # ------------------------------------------------------------------ phase 1

    def _prepare(self) -> None:
        for step in self._plan.steps:
            with self._task(f"validate_backup_integrity {step.source}"):
                self._check_chunks(step)
            with self._task(f"prepare_temporary_storage {step.source}"):
                entries = self._selection(step).entries()
                _target(self._plan, step).prepare(entries, step.bytes)

    def _check_chunks(self, step: RestoreStep) -> None:
        there, index = self._repository.present_packs(), self._repository.load_index()
        for entry, chunk in self._selection(step).chunks():
            if not index.is_in(chunk, there):
                raise Damaged(
                    f"chunk {chunk.hex()} of {step.source}/{entry.text} is missing;"
                    f" snapshot {self._plan.snapshot} cannot be restored whole",
                    "Restore another snapshot, or bring the lost pack back from another region;"
                    " 'kryonix verify ID --level structure' names everything that is affected.",
                )

    # ------------------------------------------------------------------ phases 2 to 5

    def _apply(self, phase: Phase) -> None:
        for step in self._plan.steps:
            if step.phase is not phase:
                continue
            target = _target(self._plan, step)
            try:
                with self._task(f"restore {step.source}"):
                    report = target.load(self._counted(step))
            except KryonixError as error:
                if is_critical(phase, strict=self._plan.strict):
                    raise
                target.roll_back()
                self._failed_now.append(step.source)
                self._problems.append(Problem(step.source, error.message))
                continue
            self._problems.extend(report.problems)

    def _counted(self, step: RestoreStep) -> Iterator[tuple[Entry, Iterator[Blob]]]:
        for entry, pieces in self._selection(step).contents():
            self._entries += 1
            yield entry, self._measured(pieces)

    def _measured(self, pieces: Iterator[Blob]) -> Iterator[Blob]:
        for piece in pieces:
            self._bytes += len(piece)
            if self._clock.monotonic() - self._told >= _TELL_EVERY_S:
                self._tell()
            yield piece

    def _tell(self) -> None:
        self._told = self._clock.monotonic()
        self._listener(
            Progress(
                stage="restore",
                bytes_done=self._bytes,
                bytes_total=sum(step.bytes for step in self._plan.steps),
                entries_done=self._entries,
                entries_total=sum(step.entries for step in self._plan.steps),
                elapsed_s=self._elapsed(),
            )
        )

    # ------------------------------------------------------------------ phase 6

    def _finalize(self) -> None:
        steps = [step for step in self._plan.steps if step.source not in self._lost]
        targets = [(step, _target(self._plan, step)) for step in steps]
        for step, target in targets:
            with self._task(f"validate_data_integrity {step.source}"):
                differing = target.compare(self._selection(step).entries())
                if differing:
                    first = differing[0]
                    raise ValidationFailed(
                        f"{len(differing)} restored entries of {step.source} differ from the"
                        f" snapshot, the first is {first.path!r}: {first.reason}"
                    )
        for step, target in targets:
            with self._task(f"switch_over {step.source}"):
                target.commit()
        for step, target in targets:
            with self._task(f"cleanup_temporary_resources {step.source}"):
                target.finish()

    # ------------------------------------------------------------------ all of them

    def _selection(self, step: RestoreStep) -> Selection:
        return Selection(self._repository, self._sources[step.source], self._plan.include)

    @contextmanager
    def _task(self, name: str) -> Iterator[None]:
        started = self._clock.monotonic()
        yield
        duration = round(self._clock.monotonic() - started, 3)
        self._tasks.append(TaskResult(name, DONE, duration))

    def _elapsed(self) -> float:
        return round(self._clock.monotonic() - self._started, 3)
