"""
Carrying out a restore, phase by phase.

The journal in the repository holds the plan and each phase's outcome, written before the next
phase starts, so that a second run of the same restore goes on after the last finished phase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from threading import Lock
from typing import Any, NamedTuple

from kryonix_backup.clock import Clock
from kryonix_backup.errors import (
    AlreadyRunning,
    Damaged,
    KryonixError,
    ObjectExists,
    RestoreError,
    StoreDenied,
    StoreFull,
    ValidationFailed,
)
from kryonix_backup.events import Listener, Progress
from kryonix_backup.model import Blob, Entry, LogHeader, Phase, Problem, SourceName
from kryonix_backup.repository.log import fetched_ahead
from kryonix_backup.repository.repository import Repository
from kryonix_backup.restore.log_range import LogRange
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
from kryonix_backup.sources.source import FOLDED, Log, Target, folded_segment

_TELL_EVERY_S = 0.2
_PROBLEMS_KEPT = 1000  # in a phase's record; there may be millions, and the count is told


def begin_restore(repository: Repository, plan: RestorePlan) -> None:
    """Write the plan into the journal: from here on the restore can be resumed."""
    try:
        repository.write_journal(plan.restore, 0, {"plan": plan.to_plain()})
    except (StoreDenied, StoreFull) as error:
        error.hint = (
            "A restore keeps its journal in the repository: let it write a few KiB there, or"
            " restore from a copy of it. 'kryonix cat' and 'kryonix ls' need no such right."
        )
        raise


def run_phase(
    repository: Repository, plan: RestorePlan, phase: Phase, listener: Listener, clock: Clock
) -> PhaseResult:
    """
    Do one phase and journal its outcome; one that is done already gives its recorded result.

    Raises whatever stopped a critical phase; the caller then rolls back. A failure of another
    phase is undone here, and told in the result.
    """
    history = _History.of(repository, plan)
    if "rolled_back" in history.marks:
        raise ValidationFailed(
            f"restore {plan.restore} was rolled back", "Start a new restore, without --resume."
        )
    if phase in history.results:
        return history.results[phase]
    run = _Run(repository, plan, history, listener, clock)
    result = run.phase(phase)
    run.note({"phase": result.to_plain()})
    return result


def roll_back(repository: Repository, plan: RestorePlan) -> None:
    """
    Put every target back as it was before the restore; may be run again after a crash.

    Raises RestoreError once everything was switched over: what was there before is then dropped.
    """
    history = _History.of(repository, plan)
    if "switched" in history.marks:
        raise RestoreError(
            f"restore {plan.restore} was completed, and what it replaced is gone",
            "Restore an older snapshot to go back.",
        )
    for step in reversed(plan.steps):
        _target(plan, step).roll_back()
    if "rolled_back" not in history.marks:
        _record(repository, plan, history.steps, {"rolled_back": True})


def finish_restore(repository: Repository, plan: RestorePlan) -> RestoreReport:
    """What came of a restore, from its journal."""
    history = _History.of(repository, plan)
    phases = tuple(history.results[phase] for phase in Phase if phase in history.results)
    status = ROLLED_BACK if "rolled_back" in history.marks else status_of(plan, phases)
    return RestoreReport(plan, status, phases)


class _History(NamedTuple):
    """What the journal of a restore says."""

    results: dict[Phase, PhaseResult]
    marks: frozenset[str]
    failed: frozenset[str]
    steps: int

    @classmethod
    def of(cls, repository: Repository, plan: RestorePlan) -> _History:
        records = repository.journal(plan.restore)
        done = [PhaseResult.from_plain(each["phase"]) for each in records if "phase" in each]
        return cls(
            {result.phase: result for result in done},
            frozenset(mark for each in records for mark in each),
            frozenset(name for result in done for name in result.failed_sources),
            len(records),
        )


def _record(repository: Repository, plan: RestorePlan, step: int, record: dict[str, Any]) -> None:
    """Write a step that was the next one when its work began: another runner's is not followed."""
    try:
        repository.write_journal(plan.restore, step, record)
    except ObjectExists as error:
        raise AlreadyRunning(f"restore {plan.restore} is being run by another process") from error


def _target(plan: RestorePlan, step: RestoreStep) -> Target:
    return open_target(step.target, plan.restore, overwrite=plan.overwrite)


class _Filling:
    """The `Content` of one step."""

    def __init__(self, run: _Run, step: RestoreStep) -> None:
        self._run = run
        self._step = step

    def items(
        self, wanted: Callable[[Entry], bool] | None = None
    ) -> Iterator[tuple[Entry, Iterator[Blob]]]:
        return self._run.counted(self._run.selection(self._step).contents(wanted))

    def log(self) -> Log | None:
        return self._run.replayed(self._step)


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
        self._counting = Lock()
        self._bytes = 0
        self._entries = 0
        self._lost = history.failed
        self._marks = history.marks
        self._step = history.steps
        self._failed_now: list[str] = []
        self._sources = {
            step.source: repository.snapshot(step.snapshot).sources[step.source]
            for step in plan.steps
        }

    def note(self, record: dict[str, Any]) -> None:
        """Write the next record of the journal; raises AlreadyRunning where another runner did."""
        _record(self._repository, self._plan, self._step, record)
        self._step += 1

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
                needed = self._check_chunks(step)
            with self._task(f"prepare_temporary_storage {step.source}"):
                entries = self.selection(step).entries()
                _target(self._plan, step).prepare(entries, needed)

    def _check_chunks(self, step: RestoreStep) -> int:
        """Find every chunk of a source in a pack that is there; the bytes of their content."""
        there, index = self._repository.present_packs(), self._repository.load_index()
        needed = 0
        for entry, chunks in self.selection(step).chunks():
            needed += entry.content_bytes
            for chunk in chunks:
                if index.is_in(chunk, there):
                    continue
                raise Damaged(
                    f"chunk {chunk.hex()} of {step.source}/{entry.text} is missing;"
                    f" snapshot {step.snapshot} cannot be restored whole",
                    "Restore another snapshot, or bring the lost pack back from another region;"
                    " 'kryonix verify ID --level structure' names everything that is affected.",
                )
        return needed

    # ------------------------------------------------------------------ phases 2 to 5

    def _apply(self, phase: Phase) -> None:
        for step in self._plan.steps:
            if step.phase is not phase:
                continue
            target = _target(self._plan, step)
            try:
                with self._task(f"restore {step.source}"):
                    report = target.load(_Filling(self, step))
            except KryonixError as error:
                if is_critical(phase, strict=self._plan.strict):
                    raise
                target.roll_back()
                self._failed_now.append(step.source)
                self._problems.append(Problem(step.source, error.message))
                continue
            self._problems.extend(report.problems)

    def counted(
        self, items: Iterator[tuple[Entry, Iterator[Blob]]]
    ) -> Iterator[tuple[Entry, Iterator[Blob]]]:
        """The same items; what goes through is counted and told, from whichever thread."""
        for entry, pieces in items:
            with self._counting:
                self._entries += 1
            yield entry, self.measured(pieces)

    def measured(self, pieces: Iterator[Blob]) -> Iterator[Blob]:
        """The same pieces, counted and told."""
        for piece in pieces:
            with self._counting:
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
        # A run that goes on after a crash must neither compare what was moved into place already,
        # nor offer to roll back what was partly dropped.
        if "validated" not in self._marks:
            for step, target in targets:
                self._validate(step, target)
            self.note({"validated": True})
        if "switched" not in self._marks:
            for step, target in targets:
                with self._task(f"switch_over {step.source}"):
                    target.commit()
            self.note({"switched": True})
        for step, target in targets:
            self._clean_up(step, target)

    def _validate(self, step: RestoreStep, target: Target) -> None:
        with self._task(f"validate_data_integrity {step.source}"):
            differing = target.compare(self.selection(step).entries())
            if differing:
                first = differing[0]
                raise ValidationFailed(
                    f"{len(differing)} restored entries of {step.source} differ from the"
                    f" snapshot, the first is {first.path!r}: {first.reason}"
                )

    def _clean_up(self, step: RestoreStep, target: Target) -> None:
        try:
            with self._task(f"cleanup_temporary_resources {step.source}"):
                target.finish()
        except KryonixError as error:
            # Everything is in place by now: what is left over is no reason to undo it.
            self._problems.append(Problem(step.source, error.message))

    # ------------------------------------------------------------------ all of them

    def replayed(self, step: RestoreStep) -> Log | None:
        """What a step replays: what was folded, then its log, fetched ahead of its use."""
        source = self._sources[step.source]
        earlier = folded_segment(source.position)
        segments: Iterator[tuple[LogHeader, Iterator[Blob]]] = iter(())
        if step.log is not None:
            segments = self._segments(step.source, step.log)
        if earlier is not None:
            (part,) = source.parts
            content = self._repository.content(part.root, FOLDED)
            segments = chain([(earlier, content)], segments)
        elif step.log is None:
            return None
        after = earlier.start if earlier else source.position["at"]
        since = datetime.fromisoformat(source.position["time"])
        until = step.log.until if step.log else since
        return Log(
            after, since, until, ((header, self.measured(body)) for header, body in segments)
        )

    def _segments(
        self, source: SourceName, part: LogRange
    ) -> Iterator[tuple[LogHeader, Iterator[Blob]]]:
        book = self._repository.log(source)
        numbers = range(part.first, part.last + 1)
        at_once = self._repository.store.parallel  # each may hold a whole body
        return fetched_ahead(numbers, lambda number: book.segment(part.chain, number), at_once)

    def selection(self, step: RestoreStep) -> Selection:
        """What comes back of a source."""
        return Selection(self._repository, self._sources[step.source], self._plan.include)

    @contextmanager
    def _task(self, name: str) -> Iterator[None]:
        started = self._clock.monotonic()
        yield
        duration = round(self._clock.monotonic() - started, 3)
        self._tasks.append(TaskResult(name, DONE, duration))

    def _elapsed(self) -> float:
        return round(self._clock.monotonic() - self._started, 3)
