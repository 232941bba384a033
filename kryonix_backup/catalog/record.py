"""What one run leaves for the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Self, TypeVar

from kryonix_backup.repository.snapshot import Snapshot, SourceResult

BACKUP = "backup"
RESTORE = "restore"
VERIFY = "verify"

COMPLETE = "complete"
INCOMPLETE = "incomplete"
FAILED = "failed"
INTERRUPTED = "interrupted"
ROLLED_BACK = "rolled back"

FORMAT = 1

_Record = TypeVar("_Record", bound="RunRecord | SnapshotRecord")
_TIMES = ("started", "finished")
_SUMS = ("bytes_read", "bytes_new", "bytes_stored", "chunks", "chunks_new")
_COUNTS = ("bytes_total", *_SUMS, "entries", "entries_unchanged")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """
    One run, at its end; sizes in bytes, times aware.

    ``run`` is the id of the backup's snapshot, of the restore, or one of its own. ``kind`` is a
    backup's kind or a verification's level. ``bytes_read`` of a restore is what it brought back.
    """

    run: str
    tenant: str
    operation: str
    kind: str
    status: str
    started: datetime
    finished: datetime
    snapshot: str | None = None
    bytes_read: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0
    chunks: int = 0
    chunks_new: int = 0
    duration_s: float = 0.0
    error: str | None = None

    def to_plain(self) -> dict[str, Any]:
        """The record as JSON can say it."""
        return _plain(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """A record out of `to_plain`'s form; raises ValueError."""
        return _record(cls, plain, "a run's")


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """One snapshot as the catalog lists it; ``sources`` maps a name to its figures."""

    snapshot: str
    tenant: str
    kind: str
    parent: str | None
    started: datetime
    finished: datetime
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """The record of a published snapshot."""
        return cls(
            snapshot=snapshot.id,
            tenant=snapshot.tenant,
            kind=snapshot.kind.value,
            parent=snapshot.parent,
            started=snapshot.started,
            finished=snapshot.finished,
            sources={name: _figures(source) for name, source in snapshot.sources.items()},
        )

    def to_plain(self) -> dict[str, Any]:
        """The record as JSON can say it."""
        return _plain(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """A record out of `to_plain`'s form; raises ValueError."""
        return _record(cls, plain, "a snapshot's")


def record_of_backup(snapshot: Snapshot) -> RunRecord:
    """The run that published a snapshot, said by the snapshot alone."""
    sources = snapshot.sources.values()
    left_out = any(source.problems for source in sources)
    duration = (snapshot.finished - snapshot.started).total_seconds()
    return RunRecord(
        run=snapshot.id,
        tenant=snapshot.tenant,
        operation=BACKUP,
        kind=snapshot.kind.value,
        status=INCOMPLETE if left_out else COMPLETE,
        started=snapshot.started,
        finished=snapshot.finished,
        snapshot=snapshot.id,
        duration_s=round(duration, 3),
        **{name: sum(getattr(source, name) for source in sources) for name in _SUMS},
    )


def _plain(record: RunRecord | SnapshotRecord) -> dict[str, Any]:
    return {**asdict(record), **{name: getattr(record, name).isoformat() for name in _TIMES}}


def _record(kind: type[_Record], plain: Mapping[str, Any], whose: str) -> _Record:
    names = {each.name for each in fields(kind)}
    try:
        values = {name: value for name, value in plain.items() if name in names}
        for name in _TIMES:
            values[name] = datetime.fromisoformat(values[name])
        return kind(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{whose} record has the wrong form: {error}") from error


def _figures(source: SourceResult) -> dict[str, Any]:
    return {
        "url": source.url,
        "duration_s": source.duration_s,
        "problems": len(source.problems),
        **{name: getattr(source, name) for name in _COUNTS},
    }
