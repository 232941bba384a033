"""Time comes in aware, in UTC, and goes forward."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kryonix_backup.clock import Clock, SystemClock


def test_the_system_clock_tells_utc() -> None:
    clock: Clock = SystemClock()

    assert clock.now().tzinfo is UTC
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_sleeping_takes_the_time_it_was_asked() -> None:
    clock = SystemClock()
    before = clock.monotonic()

    clock.sleep(0.02)

    assert clock.monotonic() - before >= 0.02
