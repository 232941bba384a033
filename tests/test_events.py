"""Progress that knows its speed, and says nothing where nobody can know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers

from kryonix_backup.events import Progress, quiet


def test_speed_and_time_left_follow_from_what_was_done() -> None:
    half = Progress("back up", bytes_done=50, bytes_total=100, elapsed_s=5.0)

    assert half.bytes_per_s == 10.0
    assert half.left_s == 5.0


@pytest.mark.parametrize(
    "unknown",
    [
        Progress("back up"),
        Progress("back up", bytes_done=5, elapsed_s=1.0),
        Progress("back up", bytes_total=5, elapsed_s=1.0),
        Progress("back up", bytes_done=5, bytes_total=9),
    ],
)
def test_the_time_left_is_unknown_at_first(unknown: Progress) -> None:
    assert unknown.left_s is None


@given(integers(0, 1 << 60), integers(0, 1 << 60), floats(0, 1e9))
def test_no_figures_make_it_fail_or_go_backwards(done: int, total: int, elapsed: float) -> None:
    progress = Progress("back up", bytes_done=done, bytes_total=total, elapsed_s=elapsed)

    assert progress.bytes_per_s >= 0
    assert progress.left_s is None or progress.left_s >= 0
    quiet(progress)
