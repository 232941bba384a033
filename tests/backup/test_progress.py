"""Progress grows to what was counted, and never gets in the way of a backup."""

from __future__ import annotations

import random

from kryonix_backup.errors import SourceError
from kryonix_backup.events import Progress
from kryonix_backup.model import KIB, MIB
from kryonix_backup.sources.source import Size
from kryonix_backup.testing.clock import TickingClock
from kryonix_backup.testing.repositories import FILES, back_up, new_repository
from kryonix_backup.testing.sources import MemorySource, Thing


def _data(seed: int, size: int = 100 * KIB) -> bytes:
    return random.Random(seed).randbytes(size)


THINGS = {b"a": Thing(_data(1)), b"b": Thing(_data(2)), b"c": Thing(_data(3))}


def test_a_look_ahead_that_fails_does_not_disturb_the_backup() -> None:
    class Hasty(MemorySource):
        """Cannot say how large it is."""

        def measure(self, part: str) -> Size:
            raise SourceError("it is gone")

    told: list[Progress] = []

    report = back_up(new_repository(), Hasty(THINGS), listener=told.append)

    assert (report.status, report.to_plain()["entries"]) == ("complete", 3)
    assert {progress.bytes_total for progress in told} == {0}


def test_progress_grows_and_ends_with_what_was_counted() -> None:
    told: list[Progress] = []
    things = {b"%02d" % number: Thing(_data(number, MIB)) for number in range(12)}

    report = back_up(
        new_repository(), MemorySource(things, THINGS), listener=told.append, clock=TickingClock()
    )

    assert [p.bytes_done for p in told] == sorted(p.bytes_done for p in told)
    assert [p.elapsed_s for p in told] == sorted(p.elapsed_s for p in told)
    assert {progress.stage for progress in told} == {"backup"}
    assert len(told) > 3
    result = report.snapshot.sources[FILES]
    assert (told[-1].bytes_done, told[-1].entries_done) == (result.bytes_total, result.entries)
    assert told[-1].bytes_total == 12 * MIB + 300 * KIB


def test_a_quiet_run_does_not_look_ahead() -> None:
    class Counting(MemorySource):
        """Notes whether anyone asked."""

        asked = 0

        def measure(self, part: str) -> Size:
            self.asked += 1
            return super().measure(part)

    source = Counting(THINGS)

    back_up(new_repository(), source)

    assert source.asked == 0
