from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.process import Child, start_time
from kryonix_backup.clock import SystemClock

CLOCK = SystemClock()
STUBBORN = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True);"


@pytest.fixture
def sleeper(tmp_path: Path) -> Child:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    return Child.start("sleeper", command, dict(os.environ), tmp_path)


def test_a_process_of_ours_is_stopped(sleeper: Child) -> None:
    assert sleeper.alive()

    sleeper.stop(CLOCK, patience_s=5)

    assert not sleeper.alive()


def test_another_process_with_the_same_pid_is_left_alone(sleeper: Child) -> None:
    later = replace(sleeper, started=sleeper.started - 1)

    assert not later.alive()
    later.stop(CLOCK, patience_s=0.1)
    later.ask_to_end()

    assert sleeper.alive()
    sleeper.stop(CLOCK, patience_s=5)


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUBBORN + "time.sleep(60)"]
    child = Child.start("stubborn", command, dict(os.environ), tmp_path)
    while "up" not in child.last_lines():
        CLOCK.sleep(0.02)

    child.stop(CLOCK, patience_s=0.2)

    assert not child.alive()


def test_it_survives_being_written_down(sleeper: Child) -> None:
    assert Child.from_plain(sleeper.to_plain()) == sleeper
    sleeper.stop(CLOCK, patience_s=5)


def test_a_process_that_never_was_has_no_start() -> None:
    assert start_time(2**22 + 1) is None
