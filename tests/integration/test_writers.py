"""Eight backups of one tenant at once, in processes of their own, into one repository."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.integration import trees
from tests.integration.command import Command
from tests.integration.stores import Place, repository_of

pytestmark = pytest.mark.service

WRITERS = 8


def test_eight_writers_at_once_neither_fail_nor_wait_for_a_lock(
    place: Place, tmp_path: Path
) -> None:
    """Four of them with a source each, and four with one and the same tree."""
    command = Command.with_key_file(tmp_path / "home", **place.environment)
    url = place.new()
    names = [f"own-{number}" for number in range(4)] + ["shared"]
    words = ["tenant", "add", "acme", "--region", f"primary={url}"]
    for number, name in enumerate(names):
        trees.grow(tmp_path / name, Random(number), small=40, large_mib=6)
        words += ["--source", f"{name}=files://{tmp_path / name}"]
    command.run(*words)
    jobs = [
        ("backup", "acme", "--source", name, "--json") for name in [*names[:4], *["shared"] * 4]
    ]

    running = [command.start(*job) for job in jobs]
    reports = [command.finished(process, *job) for process, job in zip(running, jobs, strict=True)]

    assert [report.code for report in reports] == [0] * WRITERS, "\n".join(map(str, reports))
    assert command.report("verify", "acme", "--level", "data")["status"] == "ok"
    listed = repository_of(url, command).snapshot_ids()
    assert sorted(report.plain["snapshot"] for report in reports) == listed
    _assert_restores(command, tmp_path, [report.plain for report in reports])


def _assert_restores(command: Command, tmp_path: Path, reports: list[dict[str, Any]]) -> None:
    targets = {report["snapshot"]: tmp_path / "restored" / report["snapshot"] for report in reports}
    names = {report["snapshot"]: next(iter(report["sources"])) for report in reports}
    words = [
        ("restore", "acme", "--snapshot", each, "--to", f"{names[each]}=files://{target}")
        for each, target in targets.items()
    ]
    command.run_each(words, expect=0)
    for each, target in targets.items():
        assert not trees.differences(trees.state(target), trees.state(tmp_path / names[each]))


def test_a_writer_that_was_killed_holds_nobody_up(here: Place, tmp_path: Path) -> None:
    command = Command.with_key_file(tmp_path / "home")
    trees.grow(tmp_path / "tree", Random(0), small=50, large_mib=12)
    command.run(
        "tenant", "add", "acme", "--region", f"primary={here.new()}",
        "--source", f"docs=files://{tmp_path / 'tree'}",
    )  # fmt: skip
    command.struck(0.6, "backup", "acme")

    running = [command.start("backup", "acme", "--json") for _ in range(2)]
    reports = [command.finished(each, "backup", "acme") for each in running]

    assert [report.code for report in reports] == [0, 0]
    assert command.report("verify", "acme", "--level", "data")["status"] == "ok"
