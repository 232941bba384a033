"""A clock that stands still until it is told to go on, for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class FixedClock:
    """A `Clock` whose time moves only by `sleep` and `set_to`; ``slept`` has what was waited."""

    def __init__(self, moment: datetime = NOON) -> None:
        self._moment = moment
        self._elapsed = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        """The moment it stands at."""
        return self._moment

    def monotonic(self) -> float:
        """The sum of what was slept."""
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Move on by that much at once."""
        self.slept.append(seconds)
        self._elapsed += seconds
        self._moment += timedelta(seconds=seconds)

    def set_to(self, moment: datetime) -> None:
        """Set the time of day, back too; the monotonic one stays."""
        self._moment = moment


class TickingClock(FixedClock):
    """A `FixedClock` on which every look at `monotonic` takes a second."""

    def monotonic(self) -> float:
        """A second later than the last time."""
        self._elapsed += 1.0
        return self._elapsed
