"""Times of commits: which a server's clock, when it was set back, has shown twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

TWICE = "twice"
"""The key of a segment's meta that has `CommitTimes.told`; a plan of a restore reads it too."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
# Commits at once may have their times in another order than their places, by far less than this.
_JITTER_US = 2_000_000


def moment(microseconds: int) -> datetime:
    """A time as the server sends it."""
    return _EPOCH + timedelta(microseconds=microseconds)


class CommitTimes:
    """
    The commit times of a chain, in the order of the log.

    Whether a time is known to have been there twice goes on from one segment to the next.
    """

    def __init__(self, newest: datetime | None, told: Sequence[Sequence[str]]) -> None:
        self._twice = [[_microseconds(text) for text in each] for each in told]
        self._high = max((last for _, last in self._twice), default=0)
        if newest is not None:
            self._high = max(self._high, (newest - _EPOCH) // _US)

    def add(self, time: int) -> None:
        """The next commit's."""
        if time < self._high - _JITTER_US:
            if not self._twice or self._twice[-1][1] != self._high:
                self._twice.append([time, self._high])
            self._twice[-1][0] = min(self._twice[-1][0], time)
        self._high = max(self._high, time)

    def was_twice(self, time: int) -> bool:
        """Whether nobody can tell which of two moments that is."""
        return any(first <= time <= last for first, last in self._twice)

    def told(self) -> list[list[str]]:
        """The first and the last of all times that were there twice, as JSON can say them."""
        return [[moment(time).isoformat() for time in each] for each in self._twice]


def _microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // _US
