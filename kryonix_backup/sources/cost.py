"""About how long bringing something back takes, by what it took before."""

from __future__ import annotations

from typing import NamedTuple

from kryonix_backup.model import MIB, Phase


class Cost(NamedTuple):
    """Seconds for one of each; the figures are those of docs/benchmarks.md."""

    start: float
    entry: float
    byte: float
    change: float = 0.0
    folded: float = 0.0
    segment: float = 0.0


_FILES = Cost(start=0.0, entry=0.0001, byte=1 / (200 * MIB))
_DATABASE = Cost(
    start=1.0,
    entry=0.001,
    byte=1 / (80 * MIB),
    change=1 / 60_000,
    folded=1 / 60_000,
    segment=0.005,
)


class Load(NamedTuple):
    """
    What is brought back: entries and their bytes, and what is replayed on top.

    ``changes`` are those of a log in so many ``segments``, of which many may be of one row;
    ``folded`` are what an incremental backup has left of them.
    """

    entries: int
    bytes: int
    changes: int = 0
    folded: int = 0
    segments: int = 0

    def seconds(self, phase: Phase) -> float:
        """How long it takes in that phase of a restore, about."""
        cost = _DATABASE if phase is Phase.DATABASE_RESTORE else _FILES
        return (
            cost.start
            + self.entries * cost.entry
            + self.bytes * cost.byte
            + self.changes * cost.change
            + self.folded * cost.folded
            + self.segments * cost.segment
        )
