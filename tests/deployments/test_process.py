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


def stop(child: Child, patience_s: float = 5) -> None:
    child.ask_to_end()
    child.end(CLOCK, patience_s)


@pytest.fixture
def sleeper(tmp_path: Path) -> Child:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    return Child.start("sleeper", command, dict(os.environ), tmp_path)


def test_a_process_of_ours_is_stopped(sleeper: Child) -> None:
    assert sleeper.alive()

    stop(sleeper)

    assert not sleeper.alive()


def test_another_process_with_the_same_pid_is_left_alone(sleeper: Child) -> None:
    later = replace(sleeper, started=sleeper.started - 1)

    assert not later.alive()
    stop(later, 0.1)

    assert sleeper.alive()
    stop(sleeper)


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUBBORN + "time.sleep(60)"]
    child = Child.start("stubborn", command, dict(os.environ), tmp_path)
    while "up" not in child.last_lines():
        CLOCK.sleep(0.02)

    stop(child, 0.2)

    assert not child.alive()


def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    told = STUBBORN + "import os; print(os.getpid(), flush=True); time.sleep(60)"
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {told!r}])"
    parent = Child.start("parent", [sys.executable, "-c", start], dict(os.environ), tmp_path)
    while len(lines := parent.last_lines().splitlines()) < 2:
        CLOCK.sleep(0.02)
    started = int(lines[1])
    assert start_time(started) is not None

    stop(parent, 0.2)

    assert start_time(started) is None


def test_it_survives_being_written_down(sleeper: Child) -> None:
    assert Child.from_plain(sleeper.to_plain()) == sleeper
    stop(sleeper)


def test_a_process_that_never_was_has_no_start() -> None:
    assert start_time(2**22 + 1) is None
