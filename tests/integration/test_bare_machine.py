"""A machine on which nothing is left but the address of a bucket and a passphrase."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from random import Random

import pytest

from kryonix_backup.errors import ConfigError, ResidencyViolation, TenantUnknown
from tests.integration import trees
from tests.integration.command import Command
from tests.integration.stores import Place

pytestmark = pytest.mark.service

_STAMPS_COUNT_AFTER_S = 2.1


def test_a_bucket_and_a_passphrase_bring_everything_back(bucket: Place, tmp_path: Path) -> None:
    lost = Command.with_passphrase(tmp_path / "lost", **bucket.environment)
    url = bucket.new()
    region = ("--region", f"primary={url}", "--jurisdiction", "primary=BR")
    names = ("documents", "images")
    words = ["tenant", "add", "acme", "--tier", "enterprise", "--residency", "BR", *region]
    for number, name in enumerate(names):
        trees.grow(tmp_path / name, Random(number), small=40, large_mib=3)
        words += ["--source", f"{name}=files://{tmp_path / name}"]
    lost.run(*words, "--exclude", "images=*.tmp")
    time.sleep(_STAMPS_COUNT_AFTER_S)
    first = lost.report("backup", "acme")["snapshot"]
    old = {name: trees.state(tmp_path / name) for name in names}
    trees.edit(tmp_path / "documents", Random(7), new_mib=1)
    second = lost.report("backup", "acme", "--kind", "incremental")["snapshot"]
    new = {name: trees.state(tmp_path / name) for name in names}
    settings = lost.report("tenant", "show", "acme")
    shutil.rmtree(lost.home)

    bare = lost.elsewhere(tmp_path / "bare")
    for snapshot, states in ((first, old), (second, new)):
        out = tmp_path / "out" / snapshot
        to = [word for name in names for word in ("--to", f"{name}=files://{out / name}")]
        asked = ("restore", "acme", *region, "--snapshot", snapshot, *to)
        bare.run(*asked, expect=ResidencyViolation.exit_code)  # it is not said where this is
        report = bare.report(*asked, env={"KRYONIX_JURISDICTION": "BR"})
        assert report["status"] == "complete"
        for name in names:
            assert not trees.differences(trees.state(out / name), states[name])
    assert bare.report("verify", "acme", *region, "--level", "data")["status"] == "ok"
    assert len(bare.report("snapshots", "acme", *region)["snapshots"]) == 2
    unknown = bare.run("tenant", "show", "acme", expect=TenantUnknown.exit_code)
    assert "kryonix catalog rebuild" in unknown.hint

    bare.run("catalog", "rebuild", "acme", *region)

    assert bare.report("tenant", "show", "acme") == settings
    runs = bare.report("catalog", "history", "acme")["sessions"]
    backups = {run["snapshot"] for run in runs if run["operation"] == "backup"}
    assert {first, second} <= backups
    third = bare.report("backup", "acme", "--kind", "incremental")
    assert third["parent"] == second
    assert third["entries_unchanged"] > 40, "it goes on where the lost machine stopped"


def test_a_restore_goes_back_to_where_it_came_from_on_a_new_machine(
    here: Place, tmp_path: Path
) -> None:
    lost = Command.with_passphrase(tmp_path / "lost")
    region = ("--region", f"primary={here.new()}")
    tree = tmp_path / "far/away/tree"
    trees.grow(tree, Random(0), small=10, large_mib=1)
    lost.run("tenant", "add", "acme", *region, "--source", f"docs=files://{tree}")
    lost.run("backup", "acme")
    state = trees.state(tree)
    shutil.rmtree(tmp_path / "far")
    shutil.rmtree(lost.home)

    lost.elsewhere(tmp_path / "bare").run("restore", "acme", *region)

    assert not trees.differences(trees.state(tree), state)


def test_an_empty_repository_says_that_it_knows_no_settings(here: Place, tmp_path: Path) -> None:
    lost = Command.with_passphrase(tmp_path / "lost")
    region = ("--region", f"primary={here.new()}")
    (tmp_path / "tree").mkdir()
    words = ["--source", f"docs=files://{tmp_path / 'tree'}"]
    lost.run("tenant", "add", "acme", *region, *words)

    bare = lost.elsewhere(tmp_path / "bare")
    told = bare.run("catalog", "rebuild", "acme", *region, expect=ConfigError.exit_code)

    assert "has no snapshot" in told.message
    assert "kryonix tenant add" in told.hint
    bare.run("tenant", "add", "acme", *region, *words)
    bare.run("backup", "acme")


def test_a_broken_catalog_stops_no_backup_and_no_restore(
    machine: Command, here: Place, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    trees.grow(tree, Random(0), small=5, large_mib=1)
    region = f"primary={here.new()}"
    machine.run("tenant", "add", "acme", "--region", region, "--source", f"docs=files://{tree}")
    (machine.home / "catalog.db").write_bytes(b"SQLite format 3\0" + bytes(100))
    machine.run("backup", "acme")
    machine.run("restore", "acme", "--to", f"docs=files://{tmp_path / 'out'}")

    history = machine.run("catalog", "history", "acme", expect=None)
    assert history.code == 0 or "kryonix catalog rebuild" in history.hint, history
    (machine.home / "catalog.db").unlink()
    machine.run("catalog", "rebuild", "acme")
    runs = machine.report("catalog", "history", "acme")["sessions"]

    assert "backup" in {run["operation"] for run in runs}
