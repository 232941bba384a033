"""What came of a restore, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from kryonix_backup.model import Phase, Problem
from kryonix_backup.restore.plan import RestorePlan

DONE = "done"
SKIPPED = "skipped"
FAILED = "failed"

COMPLETE = "complete"
DEGRADED = "degraded"
ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task of a phase."""

    name: str
    status: str
    duration_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """One phase that ran to its end, or was not needed, or failed without stopping the restore."""

    phase: Phase
    status: str
    duration_s: float
    bytes: int
    tasks: tuple[TaskResult, ...]
    problems: tuple[Problem, ...] = ()
    failed_sources: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """The result as JSON can say it."""
        return {
            "name": self.phase.label,
            "status": self.status,
            "duration_s": self.duration_s,
            "bytes": self.bytes,
            "tasks": [asdict(task) for task in self.tasks],
            "problems": [problem._asdict() for problem in self.problems],
            "failed_sources": list(self.failed_sources),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """A result out of `to_plain`'s form."""
        return cls(
            phase=Phase[plain["name"].upper()],
            status=plain["status"],
            duration_s=plain["duration_s"],
            bytes=plain["bytes"],
            tasks=tuple(TaskResult(**task) for task in plain["tasks"]),
            problems=tuple(Problem(**problem) for problem in plain["problems"]),
            failed_sources=tuple(plain["failed_sources"]),
        )


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """A restore that came to its end; ``status`` is complete, degraded, failed or rolled back."""

    plan: RestorePlan
    status: str
    phases: tuple[PhaseResult, ...]

    def to_plain(self) -> dict[str, Any]:
        """The report as the command prints it with --json."""
        problems = [problem._asdict() for phase in self.phases for problem in phase.problems]
        last = [each for each in self.phases if each.phase is Phase.VALIDATION_AND_FINALIZATION]
        return {
            "restore": self.plan.restore,
            "tenant": self.plan.tenant,
            "snapshot": self.plan.snapshot,
            "status": self.status,
            "phases": [phase.to_plain() for phase in self.phases],
            "validation": {
                "status": last[0].status if last else "not reached",
                "problems": [problem._asdict() for phase in last for problem in phase.problems],
            },
            "bytes": sum(phase.bytes for phase in self.phases),
            "estimate_s": self.plan.estimate_s,
            "duration_s": round(sum(phase.duration_s for phase in self.phases), 3),
            "problems": problems,
        }


def status_of(plan: RestorePlan, phases: Sequence[PhaseResult]) -> str:
    """What a restore whose phases came to this amounts to."""
    lost = {name for phase in phases for name in phase.failed_sources}
    if lost and lost == {step.source for step in plan.steps}:
        return FAILED
    if lost or any(phase.problems for phase in phases):
        return DEGRADED
    return COMPLETE
