"""What a verification of the audit chain found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from kryonix_backup.repository.audit_record import Head

CHANGED = "changed"
MISSING = "missing"
INSERTED = "inserted"
MOVED = "moved"
ROLLED_BACK = "rolled back"


class Finding(NamedTuple):
    """A run of records that are not what was written; numbers are 0 for an object without one."""

    kind: str
    first: int
    last: int
    reason: str

    @classmethod
    def stray(cls, name: str) -> Finding:
        """An object among the records that is none."""
        return cls(INSERTED, 0, 0, f"{name} is no object of the chain")

    def covers(self, sequence: int) -> bool:
        """Whether that record is one of them."""
        return self.first <= sequence <= self.last

    def __str__(self) -> str:
        where = f"record {self.first}" if self.first == self.last else (
            f"records {self.first} to {self.last}")  # fmt: skip
        return f"{where if self.first else 'object'} {self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The state of one chain; whoever has ``public`` can check its signatures."""

    public: str
    records: int
    bundles: int
    signatures: int
    head: Head
    first: str | None
    last: str | None
    findings: tuple[Finding, ...]
    accepted: tuple[Finding, ...]
    remarks: tuple[str, ...]
    duration_s: float

    @property
    def status(self) -> str:
        """``ok``, ``broken``, or ``rolled back`` where this machine has seen more."""
        if any(each.kind == ROLLED_BACK for each in self.findings):
            return ROLLED_BACK
        return "broken" if self.findings else "ok"

    def to_plain(self) -> dict[str, Any]:
        """The report as the command prints it with --json."""
        return {
            "status": self.status,
            "records": self.records,
            "bundles": self.bundles,
            "signatures": self.signatures,
            "head": {"sequence": self.head.sequence, "hash": self.head.hash.hex()},
            "public_key": self.public,
            "first": self.first,
            "last": self.last,
            "findings": [each._asdict() for each in self.findings],
            "accepted": [each._asdict() for each in self.accepted],
            "remarks": list(self.remarks),
            "duration_s": self.duration_s,
        }
