"""The demo's report: what every step took, moved and proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from kryonix_backup.model import MIB

WIDTH = 80
"""What the table needs."""


@dataclass(frozen=True, slots=True)
class Step:
    """
    One step of the story; sizes in bytes, None where the step has none.

    ``new`` is what was left to store after deduplication, ``stored`` what that took after
    compression and encryption; ``compared`` is how many entries or rows came back equal.
    """

    name: str
    duration_s: float
    size: int | None = None
    new: int | None = None
    stored: int | None = None
    restored: int | None = None
    compared: int | None = None

    @property
    def deduplicated(self) -> float | None:
        """The share of the size that was stored already; 1 is all of it."""
        if self.new is None or not self.size:
            return None
        return 1 - self.new / self.size

    @property
    def compressed(self) -> float | None:
        """How many times smaller the new bytes became."""
        return self.new / self.stored if self.new and self.stored else None

    def to_plain(self) -> dict[str, Any]:
        """The step as JSON can say it."""
        return {
            **asdict(self),
            "duration_s": round(self.duration_s, 2),
            "deduplicated": None if self.deduplicated is None else round(self.deduplicated, 4),
            "compressed": None if self.compressed is None else round(self.compressed, 2),
        }


def table(steps: Sequence[Step]) -> Table:
    """All steps, one a line, in `WIDTH` columns."""
    shown = Table(box=None, padding=(0, 1), pad_edge=False)
    shown.add_column("step", no_wrap=True)
    for column in ("time", "size", "dedup", "compr", "stored", "restored", "equal"):
        shown.add_column(column, justify="right", no_wrap=True)
    for step in steps:
        shown.add_row(
            step.name,
            f"{step.duration_s:.1f} s",
            _mib(step.size),
            "" if step.deduplicated is None else f"{step.deduplicated:.1%}",
            "" if step.compressed is None else f"{step.compressed:.2f}x",
            _mib(step.stored),
            _mib(step.restored),
            "" if step.compared is None else f"{step.compared:,}",
        )
    return shown


def _mib(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / MIB:.1f} M" if size < 100 * MIB else f"{size / MIB:.0f} M"
