"""Progress is for a terminal alone."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from kryonix_backup.cli.progress import describe, shown_progress
from kryonix_backup.events import Progress, quiet
from tests.cli.conftest import Terminal


def test_a_pipe_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress() as listener:
        listener(Progress("backup", 1, 2))

    assert listener is quiet
    assert capsys.readouterr().err == ""


def test_what_is_known_is_said() -> None:
    assert describe(Progress("backup")) == "0 B, 0 B/s"
    known = Progress("backup", 1 << 20, 4 << 20, 1200, 5000, 0, 2.0)
    assert describe(known) == "1.0 MiB of 4.0 MiB, 1,200 entries, 512.0 KiB/s, 6.0 s left"


def test_a_terminal_sees_the_line_come_and_go(kryonix: Terminal) -> None:
    kryonix.add()
    screen, other = pty.openpty()
    command = [sys.executable, "-m", "kryonix_backup.cli.main", "backup", "acme", "--json"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=other, env=env, check=True)
    os.close(other)
    seen = os.read(screen, 1 << 16).decode()
    os.close(screen)

    assert "/s" in seen
    assert ended.stdout.startswith(b'{"snapshot"')
