"""`kryonix restore` brings back what was there, and says what it would do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Terminal


def _tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_what_was_lost_comes_back_beside(backed_up: Terminal) -> None:
    said = backed_up("restore", "acme", "--to", f"files={backed_up.source('out')}", "--json")

    assert said.code == 0
    assert said.json["status"] == "complete"
    assert {"restore", "snapshot", "phases", "validation", "duration_s"} <= set(said.json)
    assert [phase["name"] for phase in said.json["phases"]] == [
        "infrastructure_preparation", "database_restore", "cache_and_session_restore",
        "file_storage_restore", "messaging_restore", "validation_and_finalization",
    ]  # fmt: skip
    assert {"name", "status", "duration_s", "bytes", "tasks"} <= set(said.json["phases"][0])
    assert _tree(backed_up.root / "out") == _tree(backed_up.root / "files")


def test_people_see_the_phases(backed_up: Terminal) -> None:
    said = backed_up("restore", "acme", "--to", f"files={backed_up.source('out')}")

    assert said.code == 0
    assert "file_storage_restore" in said.out
    assert "validation: done" in said.out


def test_a_dry_run_changes_nothing(backed_up: Terminal) -> None:
    words = ("restore", "acme", "--dry-run", "--to", f"files={backed_up.source('out')}")
    plan = backed_up(*words, "--json").json

    assert plan["steps"][0]["phase"] == "file_storage_restore"
    assert "nothing was changed" in backed_up(*words).out
    assert not (backed_up.root / "out").exists()
    assert backed_up("restore", "acme", "--resume", plan["restore"]).code == 74


def test_nothing_is_overwritten_unasked(backed_up: Terminal) -> None:
    (backed_up.root / "files" / "deep" / "letter.txt").write_text("newer")

    assert backed_up("restore", "acme").code == 71
    assert (backed_up.root / "files" / "deep" / "letter.txt").read_text() == "newer"
    assert backed_up("restore", "acme", "--overwrite").code == 0
    assert (backed_up.root / "files" / "deep" / "letter.txt").read_text() == "dear reader\n"


def test_a_time_finds_the_snapshot_before_it(backed_up: Terminal) -> None:
    first = backed_up("snapshots", "acme", "--json").json["snapshots"][0]
    backed_up("backup", "acme")
    words = ("restore", "acme", "--dry-run", "--json", "--at")

    assert backed_up(*words, first["finished"]).json["snapshot"] == first["id"]
    assert backed_up(*words, "2001-01-01").code == 56


@pytest.mark.parametrize(
    "words",
    [
        ("--snapshot", "latest", "--at", "2026-01-01"),
        ("--resume", "20261123t120000z-0011223344556677", "--strict"),
        ("--resume", "20261123t120000z-0011223344556677", "--dry-run"),
        ("--to", "files=files:///a", "--to", "files=files:///b"),
        ("--at", "yesterday"),
        ("--to", "files"),
    ],
)
def test_a_contradiction_is_refused(backed_up: Terminal, words: tuple[str, ...]) -> None:
    assert backed_up("restore", "acme", *words).code == 2


def test_only_what_fits_comes_back(backed_up: Terminal) -> None:
    out = f"files={backed_up.source('out')}"
    said = backed_up("restore", "acme", "--include", "*.txt", "--to", out)

    assert said.code == 0
    assert set(_tree(backed_up.root / "out")) == {"deep/letter.txt"}


def test_bucket_and_key_are_enough(backed_up: Terminal, kryonix_home: Path) -> None:
    backed_up("tenant", "remove", "acme")
    region = f"primary={backed_up.url('acme-primary')}"

    said = backed_up(
        "restore", "acme", "--region", region, "--to", f"files={backed_up.source('out')}"
    )

    assert said.code == 0
    assert _tree(backed_up.root / "out") == _tree(backed_up.root / "files")


def test_an_unknown_restore_cannot_be_resumed_or_undone(backed_up: Terminal) -> None:
    unknown = "20261123t120000z-0011223344556677"

    assert backed_up("restore", "acme", "--resume", unknown).code == 74
    assert backed_up("rollback", "acme", unknown).code == 74


def _killed_after_phase(number: int, backed_up: Terminal) -> str:
    """The id of a restore into ``out`` whose process was killed after so many phases."""
    script = (
        "import os, sys\n"
        "from kryonix_backup.model import Phase\n"
        "from kryonix_backup.sdk.client import RestoreRequest\n"
        "from kryonix_backup.sdk.tenants import connect\n"
        "client = connect('acme')\n"
        "plan = client.plan_restore(RestoreRequest(to={'files': sys.argv[2]}))\n"
        "client.begin_restore(plan)\n"
        "for phase in list(Phase)[:int(sys.argv[1])]:\n"
        "    client.run_phase(plan, phase)\n"
        "print(plan.restore, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, str(number), backed_up.source("out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -9
    return ended.stdout.strip()


@pytest.mark.parametrize("phases", [0, 3, 4, 6])
def test_a_restore_that_was_killed_goes_on(backed_up: Terminal, phases: int) -> None:
    restore = _killed_after_phase(phases, backed_up)

    said = backed_up("restore", "acme", "--resume", restore, "--json")

    assert (said.code, said.json["status"], said.json["restore"]) == (0, "complete", restore)
    assert _tree(backed_up.root / "out") == _tree(backed_up.root / "files")
    assert backed_up("restore", "acme", "--resume", restore, "--json").json == said.json


def test_a_restore_that_stopped_is_undone(backed_up: Terminal) -> None:
    restore = _killed_after_phase(4, backed_up)

    said = backed_up("rollback", "acme", restore, "--json")

    assert said.json == {"restore": restore, "tenant": "acme", "status": "rolled back"}
    assert not (backed_up.root / "out").exists()
    assert [path.name for path in backed_up.root.iterdir() if restore in path.name] == []
    assert backed_up("restore", "acme", "--resume", restore).code == 75
