"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kryonix_backup.model import TenantId
from kryonix_backup.repository.restorable import Restorable


class Level(StrEnum):
    """How deep a verification goes."""

    STRUCTURE = "structure"
    SAMPLE = "sample"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Damage:
    """One object that is not what it should be, and what depends on it."""

    object: str
    reason: str
    affects: tuple[str, ...]
    affected: int

    def to_plain(self) -> dict[str, Any]:
        """The damage as JSON can say it."""
        return {
            "object": self.object,
            "reason": self.reason,
            "affects": list(self.affects),
            "affected": self.affected,
        }


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """The transaction log of one source: which moments it leads to, and what is odd in it."""

    segments: int
    restorable: Restorable
    remarks: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """The log as JSON can say it."""
        return {
            "segments": self.segments,
            **self.restorable.to_plain(),
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification read and found; ``status`` is ok or damaged."""

    tenant: TenantId
    level: Level
    snapshots: int
    packs: int
    packs_read: int
    chunks: int
    bytes_read: int
    duration_s: float
    segments: int
    segments_read: int
    logs: tuple[VerifiedLog, ...]
    damage: tuple[Damage, ...]

    @property
    def status(self) -> str:
        """ok, or damaged."""
        return "damaged" if self.damage else "ok"

    def to_plain(self) -> dict[str, Any]:
        """The report as the command prints it with --json."""
        return {
            "tenant": self.tenant,
            "level": self.level.value,
            "status": self.status,
            "snapshots": self.snapshots,
            "packs": self.packs,
            "packs_read": self.packs_read,
            "chunks": self.chunks,
            "bytes_read": self.bytes_read,
            "duration_s": self.duration_s,
            "segments": self.segments,
            "segments_read": self.segments_read,
            "logs": {log.restorable.source: log.to_plain() for log in self.logs},
            "damage": [damage.to_plain() for damage in self.damage],
        }
