"""What a backup came to, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kryonix_backup.model import BackupKind
from kryonix_backup.repository.snapshot import Snapshot, SourceResult

COMPLETE = "complete"
INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """A published snapshot and its sums; ``status`` is incomplete when entries were left out."""

    snapshot: Snapshot
    status: str

    def to_plain(self) -> dict[str, Any]:
        """The report as the command prints it with --json."""
        sources = self.snapshot.sources.values()
        plain: dict[str, Any] = {
            "snapshot": self.snapshot.id,
            "tenant": self.snapshot.tenant,
            "kind": self.snapshot.kind.value,
            "parent": self.snapshot.parent,
            "status": self.status,
            "started": self.snapshot.started.isoformat(),
            "duration_s": round(
                (self.snapshot.finished - self.snapshot.started).total_seconds(), 3
            ),
        }
        for name in _SUMS:
            plain[name] = sum(getattr(source, name) for source in sources)
        plain["problems"] = [
            {"source": source.name, **problem._asdict()}
            for source in sources
            for problem in source.problems
        ]
        plain["sources"] = {source.name: _source(source, self.snapshot.kind) for source in sources}
        return plain


_SUMS = (
    "bytes_total", "bytes_read", "bytes_new", "bytes_stored",
    "chunks", "chunks_new", "entries", "entries_unchanged",
)  # fmt: skip


def _source(source: SourceResult, asked: BackupKind) -> dict[str, Any]:
    return {
        "url": source.url,
        "kind": BackupKind.FULL.value if source.why else asked.value,
        "why": source.why,
        "duration_s": source.duration_s,
        "problems": len(source.problems),
        **{name: getattr(source, name) for name in _SUMS},
    }


def summarise(snapshot: Snapshot) -> BackupReport:
    """The report of a snapshot that was just published."""
    left_out = any(source.problems for source in snapshot.sources.values())
    return BackupReport(snapshot, INCOMPLETE if left_out else COMPLETE)
