"""What a restore will do, worked out before anything is changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from kryonix_backup.clock import Clock
from kryonix_backup.errors import (
    ConfigError,
    RestoreUnknown,
    SnapshotUnknown,
    UsageError,
)
from kryonix_backup.model import (
    Phase,
    RestoreId,
    SnapshotId,
    SourceName,
    TenantId,
    is_run_id,
    moment_of,
    new_run_id,
)
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.restore.choosing import choose, load_with
from kryonix_backup.restore.log_range import LogRange, leads_to
from kryonix_backup.restore.selection import Selection
from kryonix_backup.sources.registry import phase_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """
    What the operator asks for.

    ``at`` takes the newest snapshot of that time, and of a source that keeps a log everything that
    was committed by then, that very microsecond included. ``to`` names another URL for a
    source; without it a source goes back to where it came from. ``include`` holds gitignore
    patterns of paths within the sources; without any, everything comes back.
    """

    snapshot: str = "latest"
    at: datetime | None = None
    sources: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    to: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class RestoreStep:
    """
    One source that comes back: to where, in which phase, and which part of its log on top.

    ``entries`` and ``bytes`` are those of ``snapshot``, and ``estimate_s`` is in seconds, by what
    such restores took. ``why`` says why that snapshot was chosen, where there was a choice.
    """

    source: SourceName
    target: str
    phase: Phase
    entries: int
    bytes: int
    snapshot: SnapshotId
    estimate_s: float
    log: LogRange | None = None
    why: str = ""

    def to_plain(self) -> dict[str, Any]:
        """The step as JSON can say it."""
        return {
            "source": self.source,
            "target": self.target,
            "phase": self.phase.label,
            "entries": self.entries,
            "bytes": self.bytes,
            "snapshot": self.snapshot,
            "estimate_s": self.estimate_s,
            "log": None if self.log is None else self.log.to_plain(),
            "why": self.why,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], snapshot: SnapshotId) -> Self:
        """
        A step out of `to_plain`'s form, of a plan for that snapshot.

        An earlier version's knows of one snapshot for all, of no estimate, and maybe of no log.
        """
        return cls(
            SourceName(plain["source"]),
            plain["target"],
            Phase[plain["phase"].upper()],
            plain["entries"],
            plain["bytes"],
            SnapshotId(plain.get("snapshot", snapshot)),
            plain.get("estimate_s", 0.0),
            LogRange.from_plain(plain["log"]) if plain.get("log") else None,
            plain.get("why", ""),
        )


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """A restore before it runs; it is the first record of the restore's journal."""

    restore: RestoreId
    tenant: TenantId
    snapshot: SnapshotId
    taken: datetime
    created: datetime
    steps: tuple[RestoreStep, ...]
    include: tuple[str, ...]
    strict: bool
    overwrite: bool

    @property
    def estimate_s(self) -> float:
        """Seconds that it will take, by what such restores took."""
        return round(sum(step.estimate_s for step in self.steps), 1)

    def to_plain(self) -> dict[str, Any]:
        """The plan as JSON can say it."""
        return {
            "restore": self.restore,
            "tenant": self.tenant,
            "snapshot": self.snapshot,
            "taken": self.taken.isoformat(),
            "created": self.created.isoformat(),
            "estimate_s": self.estimate_s,
            "steps": [step.to_plain() for step in self.steps],
            "include": list(self.include),
            "strict": self.strict,
            "overwrite": self.overwrite,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """A plan out of `to_plain`'s form."""
        return cls(
            restore=RestoreId(plain["restore"]),
            tenant=TenantId(plain["tenant"]),
            snapshot=SnapshotId(plain["snapshot"]),
            taken=datetime.fromisoformat(plain["taken"]),
            created=datetime.fromisoformat(plain["created"]),
            steps=tuple(
                RestoreStep.from_plain(row, SnapshotId(plain["snapshot"])) for row in plain["steps"]
            ),
            include=tuple(plain["include"]),
            strict=plain["strict"],
            overwrite=plain["overwrite"],
        )


def plan_restore(repository: Repository, request: RestoreRequest, clock: Clock) -> RestorePlan:
    """
    The steps of a restore, in the order of their phases; reads only.

    Raises SnapshotUnknown, TimeUnreachable, UsageError, ConfigError and InvalidUrl.
    """
    snapshot = _snapshot(repository, request, clock)
    names = request.sources or tuple(snapshot.sources)
    unknown = {*names, *request.to} - set(snapshot.sources)
    if unknown:
        known = ", ".join(snapshot.sources) or "none"
        raise ConfigError(
            f"snapshot {snapshot.id} has no source {sorted(unknown)[0]!r} (it has: {known})"
        )
    now = clock.now()
    steps = [_step(repository, snapshot, SourceName(name), request) for name in names]
    if snapshot.id not in {step.snapshot for step in steps}:
        snapshot = repository.snapshot(max(step.snapshot for step in steps))
    return RestorePlan(
        restore=RestoreId(new_run_id(now)),
        tenant=repository.tenant,
        snapshot=snapshot.id,
        taken=snapshot.finished,
        created=now,
        steps=tuple(sorted(steps, key=lambda step: step.phase)),
        include=request.include,
        strict=request.strict,
        overwrite=request.overwrite,
    )


def load_plan(repository: Repository, restore: str) -> RestorePlan:
    """The plan that a restore began with; raises RestoreUnknown."""
    records = repository.journal(RestoreId(restore)) if is_run_id(restore) else []
    if not records or "plan" not in records[0]:
        raise RestoreUnknown(f"no restore {restore!r} was begun in this repository")
    return RestorePlan.from_plain(records[0]["plan"])


def _snapshot(repository: Repository, request: RestoreRequest, clock: Clock) -> Snapshot:
    if request.at is None:
        return repository.snapshot(request.snapshot)
    if request.snapshot != "latest":
        raise UsageError("a snapshot and a time were both given; give one")
    if request.at.tzinfo is None:
        raise UsageError("the time to restore to has no time zone")
    return _newest_by(repository, request.at, request.sources, clock)


def _newest_by(
    repository: Repository, at: datetime, sources: Sequence[str], clock: Clock
) -> Snapshot:
    oldest = None
    for snapshot_id in reversed(repository.snapshot_ids()):
        snapshot = repository.whole_snapshot(snapshot_id)
        if snapshot is None:
            continue
        if _taken_by(snapshot, at, sources):
            if moment_of(snapshot.id) > snapshot.finished:
                log.warning("snapshot %s was taken while a clock was set back", snapshot.id)
            return snapshot
        if snapshot.finished > clock.now():
            log.warning("snapshot %s is passed over: its time is in the future", snapshot.id)
        oldest = snapshot
    when = f"the oldest was taken {oldest.finished.isoformat()}" if oldest else "there is none yet"
    raise SnapshotUnknown(f"no snapshot is as old as {at.isoformat()}; {when}")


def _taken_by(snapshot: Snapshot, at: datetime, sources: Sequence[str]) -> bool:
    """Whether everything that is wanted of a snapshot is of that time or older."""
    wanted = [source for name, source in snapshot.sources.items() if not sources or name in sources]
    moments = [
        datetime.fromisoformat(source.position["time"]) if source.position else snapshot.finished
        for source in wanted
    ]
    return bool(moments) and max(moments) <= at


def _step(
    repository: Repository, snapshot: Snapshot, name: SourceName, request: RestoreRequest
) -> RestoreStep:
    source, replayed, why = snapshot.sources[name], None, ""
    target = request.to.get(name, source.url)
    phase = phase_of(target)
    if request.at is not None and source.position:
        (snapshot, source, replayed, _), why = choose(repository, name, request.at, phase)
    elif source.position and request.snapshot == "latest":
        _tell_of_log(repository, name, source.position)
    entries, size = Selection(repository, source, request.include).totals()
    if request.include and not entries:
        raise SnapshotUnknown(f"nothing in source {name} fits {', '.join(request.include)}")
    seconds = load_with(source, entries, size, replayed).seconds(phase)
    return RestoreStep(
        name, target, phase, entries, size, snapshot.id, round(seconds, 1), replayed, why
    )


def _tell_of_log(repository: Repository, name: SourceName, position: Mapping[str, Any]) -> None:
    newest = leads_to(repository.log(name), position)
    if newest is not None:
        log.warning(
            "%s is brought back as of its newest backup, %s; its log leads on, and --at brings back"
            " what was committed up to %s",
            name,
            position["time"],
            newest.isoformat(),
        )
