"""The demo tells its whole story, proves it, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from deployments.demo_regions import NAMES, directories
from deployments.demo_table import Step
from deployments.process import start_time

KRYONIX = Path(sys.executable).with_name("kryonix")


def _demo(scratch: Path, *words: str) -> dict[str, Any]:
    """The demo's report; ``scratch`` is where it makes its home."""
    ended = subprocess.run(
        [KRYONIX, "demo", "--json", *words],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert isinstance(report, dict)
    return report


def _processes_of(scratch: Path) -> list[str]:
    """Processes that were started in, or told of, the demo's home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue  # ended meanwhile, or not ours
        if f"{scratch}/kryonix-".encode() in told:
            found.append(process.name)
    return found


def _assert_restored(report: dict[str, Any]) -> None:
    steps = {step["name"]: step for step in report["steps"]}
    first, second = steps["back up (flow)"], steps["back up again (flow)"]

    assert report["status"] == "restored and equal"
    assert set(report["regions"]) == set(NAMES)
    assert 0 < first["stored"] < first["new"] <= first["size"]
    assert 0 < second["stored"] < first["stored"] / 4
    assert sum(bool(step["compared"]) for step in steps.values()) == 3
    assert steps["restore db (CLI)"]["compared"] > 40_000


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where the demo makes its home: every user may enter, as its database is nobody's."""
    with TemporaryDirectory(prefix="kryonix-scratch-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.service
@pytest.mark.timeout(600)  # a server, three workers and three runs, on two cores that others use
def test_a_destroyed_tenant_comes_back_and_nothing_is_left(scratch: Path) -> None:
    report = _demo(scratch, "--size", "16", "--s3")

    _assert_restored(report)
    assert not _processes_of(scratch)
    assert not list(scratch.iterdir())


@pytest.mark.service
@pytest.mark.timeout(600)
def test_a_kept_demo_runs_on_until_it_is_told_to_end(scratch: Path) -> None:
    report = _demo(scratch, "--size", "16", "--keep")
    environment = {**os.environ, "KRYONIX_HOME": f"{report['kept']}/kryonix"}

    def kryonix(word: str) -> int:
        return subprocess.run([KRYONIX, word], env=environment, check=False).returncode

    try:
        _assert_restored(report)
        assert kryonix("status") == 0
    finally:
        assert kryonix("down") == 0
        (running,) = scratch.glob("kryonix-pg*/data/postmaster.pid")
        server = int(running.read_text().split()[0])
        os.kill(server, signal.SIGINT)
        while start_time(server) is not None:
            time.sleep(0.05)
    assert not _processes_of(scratch)


def test_regions_are_apart(tmp_path: Path) -> None:
    assert len(set(directories(tmp_path, "acme").urls.values())) == len(NAMES)


def test_a_step_says_what_was_saved() -> None:
    step = Step("backup", 1.0, size=1000, new=250, stored=100)

    assert (step.deduplicated, step.compressed) == (0.75, 2.5)
    assert Step("nothing new", 1.0, size=1000, new=0, stored=0).compressed is None
