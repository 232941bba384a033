"""What benchmarks put their clocks around is there, under the name by which they ask for it."""

from __future__ import annotations

import subprocess
import sys

from tests.architecture.tree import ROOT


def test_the_steps_of_a_restore_can_be_timed() -> None:
    words = [sys.executable, str(ROOT / "benchmarks" / "postgres_steps.py"), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
