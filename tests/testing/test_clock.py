"""A fixed clock moves only when it is told to."""

from __future__ import annotations

from datetime import timedelta

from kryonix_backup.testing.clock import NOON, FixedClock, TickingClock


def test_it_stands_still_until_someone_sleeps() -> None:
    clock = FixedClock()

    assert (clock.now(), clock.now(), clock.monotonic()) == (NOON, NOON, 0.0)
    clock.sleep(1.5)

    assert (clock.now(), clock.monotonic()) == (NOON + timedelta(seconds=1.5), 1.5)
    assert clock.slept == [1.5]


def test_the_time_of_day_can_be_set_back_and_the_other_one_stays() -> None:
    clock = FixedClock()
    clock.sleep(5)

    clock.set_to(NOON - timedelta(days=1))

    assert (clock.now(), clock.monotonic()) == (NOON - timedelta(days=1), 5)


def test_a_ticking_one_goes_on_at_every_look() -> None:
    clock = TickingClock()

    assert [clock.monotonic() for _ in range(3)] == [1.0, 2.0, 3.0]
    assert clock.now() == NOON
