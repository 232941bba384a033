"""The manifest of one run of a backup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from kryonix_backup.errors import Damaged
from kryonix_backup.model import BackupKind, Problem, SnapshotId, SourceName, TenantId
from kryonix_backup.repository.tree import Root


@dataclass(frozen=True, slots=True)
class PartResult:
    """One part of a source, as a snapshot names it."""

    name: str
    root: Root
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SourceResult:
    """
    What one source gave to a snapshot; small, and sayable as JSON.

    ``bytes_total`` is the size of what it names, ``bytes_read`` what was read of it this time,
    ``bytes_new`` the raw size of chunks not seen before and ``bytes_stored`` what was written.
    ``why`` says why it was read as for a full backup where an incremental one was asked for.
    """

    name: SourceName
    url: str
    parts: tuple[PartResult, ...]
    position: Mapping[str, Any]
    entries: int
    entries_unchanged: int
    bytes_total: int
    bytes_read: int
    bytes_new: int
    bytes_stored: int
    chunks: int
    chunks_new: int
    duration_s: float
    problems: tuple[Problem, ...]
    why: str = ""

    def shown(self, part: PartResult, path: bytes) -> str:
        """The path for people of an entry: source, part where there are several, path."""
        names = [self.name] if len(self.parts) == 1 else [self.name, part.name]
        text = path.decode("utf-8", "backslashreplace")
        return "/".join([*names, text] if text else names)

    def to_plain(self) -> dict[str, Any]:
        """The result as JSON can say it."""
        plain = asdict(self)
        plain["parts"] = [
            {"name": part.name, "root": part.root.to_plain(),
             "entries": part.entries, "bytes": part.bytes}
            for part in self.parts
        ]  # fmt: skip
        plain["problems"] = [problem._asdict() for problem in self.problems]
        plain["position"] = dict(self.position)
        if not self.why:
            del plain["why"]  # earlier versions read what they know
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Raises Damaged."""
        try:
            parts = tuple(
                PartResult(row["name"], Root.from_plain(row["root"]), row["entries"], row["bytes"])
                for row in plain["parts"]
            )
            problems = tuple(Problem(row["path"], row["reason"]) for row in plain["problems"])
            return cls(**{**plain, "parts": parts, "problems": problems})
        except (KeyError, TypeError) as error:
            raise Damaged(f"a snapshot names a source in the wrong form: {error}") from error


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that one run of a backup saw; times are in UTC and aware."""

    id: SnapshotId
    tenant: TenantId
    kind: BackupKind
    parent: SnapshotId | None
    started: datetime
    finished: datetime
    sources: Mapping[SourceName, SourceResult]
    settings: Mapping[str, Any]
    version: str

    def to_plain(self) -> dict[str, Any]:
        """The snapshot as JSON can say it."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "kind": self.kind.value,
            "parent": self.parent,
            "started": self.started.isoformat(),
            "finished": self.finished.isoformat(),
            "sources": {name: source.to_plain() for name, source in self.sources.items()},
            "settings": dict(self.settings),
            "version": self.version,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Raises Damaged."""
        try:
            return cls(
                id=SnapshotId(plain["id"]),
                tenant=TenantId(plain["tenant"]),
                kind=BackupKind(plain["kind"]),
                parent=plain["parent"],
                started=_moment(plain["started"]),
                finished=_moment(plain["finished"]),
                sources={
                    SourceName(name): SourceResult.from_plain(row)
                    for name, row in plain["sources"].items()
                },
                settings=plain["settings"],
                version=plain["version"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(f"a snapshot has the wrong form: {error}") from error


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"the time {text} has no zone")
    return moment
