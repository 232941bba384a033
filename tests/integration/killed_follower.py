"""The command that follows a database's log, killed with SIGKILL and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from tests.integration.command import Command

# The command itself, but for how often it cuts the log.
_FOLLOW = """
import sys
import kryonix_backup.sdk.following as following
from kryonix_backup.cli.main import main
following.SEGMENT_EVERY_S = float(sys.argv.pop(1))
main()
"""
# As it is, and often enough that a kill falls into every step of keeping a segment.
_PACES_S = (60.0, 1.0, 0.2)
_QUICK_S = 1.0
_MOST_S = 4.0
_PATIENCE_S = 15.0  # with a transaction of very many rows no segment is stored for a while
_BETWEEN_STEPS_S = 0.03
_AT_STORING = 0.5  # the share of kills that wait for segments to be stored


@dataclass
class KilledFollower:
    """One tenant's follower; ``kills`` says when each was, by this machine's clock."""

    command: Command
    tenant: str
    region: Path
    chance: Random
    kills: list[datetime] = field(default_factory=list)
    peak_bytes: int = 0
    waited: int = 0
    """How many kills came just after a segment was stored."""

    def kill_one(self) -> None:
        """Start it, and kill it at a moment that nobody chose."""
        at_storing = self.chance.random() < _AT_STORING
        pace = self.chance.choice([each for each in _PACES_S if not at_storing or each <= _QUICK_S])
        with (self.command.home / "follower.log").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", _FOLLOW, str(pace), "backup", self.tenant, "--kind", "log",
                 "--follow"],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                env=self.command.environment(),
            )  # fmt: skip
        try:
            if at_storing:
                self._await_segments(process)
            else:
                time.sleep(self.chance.uniform(0.0, _MOST_S))
            self._look_at_memory(process)
        finally:
            ended = process.poll()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert ended is None, f"the follower ended with {ended}: {self.said()}"
        self.kills.append(datetime.now(UTC))

    def said(self) -> str:
        """The end of what it told."""
        return (self.command.home / "follower.log").read_text()[-3000:]

    def _await_segments(self, process: subprocess.Popen[bytes]) -> None:
        """Until some are stored, and a little longer."""
        awaited = self._segments() + self.chance.randint(1, 3)
        deadline = time.monotonic() + _PATIENCE_S
        while process.poll() is None and time.monotonic() < deadline:
            if self._segments() >= awaited:
                self.waited += 1
                break
            time.sleep(0.001)
        time.sleep(self.chance.uniform(0.0, _BETWEEN_STEPS_S))

    def _segments(self) -> int:
        return sum(len(files) for _, _, files in os.walk(self.region / "logs"))

    def _look_at_memory(self, process: subprocess.Popen[bytes]) -> None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) * 1024)
