"""What happens while a run goes on, told to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """
    How far a run has come; told a few times a second.

    Totals are 0 while they are not known. ``bytes_done`` counts source bytes looked at, whether
    read or known to be unchanged; ``bytes_stored`` what was written to the store.
    """

    stage: str
    bytes_done: int = 0
    bytes_total: int = 0
    entries_done: int = 0
    entries_total: int = 0
    bytes_stored: int = 0
    elapsed_s: float = 0.0

    @property
    def bytes_per_s(self) -> float:
        """Source bytes a second since the stage began."""
        return self.bytes_done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds left at the present speed, or None where nobody can know."""
        if not self.bytes_total or not self.bytes_done or self.elapsed_s <= 0:
            return None
        return max(0.0, self.bytes_total - self.bytes_done) / self.bytes_per_s


Listener = Callable[[Progress], None]


def quiet(_progress: Progress) -> None:
    """A listener that shows nothing."""
