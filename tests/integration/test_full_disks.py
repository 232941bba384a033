"""Disks without room, and files and directories that cannot be read."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from kryonix_backup.errors import (
    SourceMissing,
    SourceUnreadable,
    StoreDenied,
    StoreFull,
    TargetFull,
    ValidationFailed,
)
from kryonix_backup.model import Phase
from kryonix_backup.sdk.client import RestoreRequest
from kryonix_backup.sdk.tenants import connect
from tests.integration import trees
from tests.integration.command import Command
from tests.integration.disks import IS_ROOT, MIB, SmallDisk

pytestmark = pytest.mark.service

# The kernel gives EIO to whoever reads how long a device that cannot sleep is to stay awake.
FAULTY = Path("/sys/devices/platform/power")
FAULTY_FILE = "autosuspend_delay_ms"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 24 MiB."""
    small = SmallDisk(tmp_path / "disk")
    small.path.mkdir()
    small.mount(24)
    yield small
    small.unmount()


def test_a_full_repository_says_so_and_goes_on_when_there_is_room(
    machine: Command, disk: SmallDisk, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    trees.write(tree / "first", 3 * MIB, Random(0))
    machine.run(
        "tenant", "add", "acme", "--region", f"primary=file://{disk.path}/repository",
        "--source", f"docs=files://{tree}",
    )  # fmt: skip
    machine.run("backup", "acme")
    trees.write(tree / "second", 60 * MIB, Random(1))

    full = machine.run("backup", "acme", expect=StoreFull.exit_code, **disk.limit)

    assert full.message.startswith(f"error: tenant acme: file://{disk.path}/repository: object ")
    assert "region" in full.hint
    assert "run the command again" in full.hint
    assert not list((disk.path / "repository/tmp").iterdir()), "half an object keeps its room"
    verified = machine.report("verify", "acme", "--level", "data")
    assert (verified["status"], verified["snapshots"]) == ("ok", 1)

    disk.grow()
    machine.run("backup", "acme")

    verified = machine.report("verify", "acme", "--level", "data")
    assert (verified["status"], verified["snapshots"]) == ("ok", 2)
    machine.run("restore", "acme", "--to", f"docs=files://{tmp_path / 'restored'}")
    assert not trees.differences(trees.state(tmp_path / "restored"), trees.state(tree))


def _backed_up(machine: Command, tmp_path: Path, *more: str) -> Path:
    tree = tmp_path / "tree"
    trees.grow(tree, Random(3), small=40, large_mib=30)
    region = f"primary=file://{tmp_path / 'repository'}"
    machine.run(
        "tenant", "add", "acme", "--region", region, "--source", f"docs=files://{tree}", *more
    )
    machine.run("backup", "acme")
    return tree


def test_a_target_without_room_is_seen_before_anything_is_written(
    machine: Command, disk: SmallDisk, tmp_path: Path
) -> None:
    _backed_up(machine, tmp_path)
    target = disk.path / "target" if IS_ROOT else Path("/proc/target")
    expected = TargetFull.exit_code

    full = machine.run("restore", "acme", "--to", f"docs=files://{target}", expect=expected)

    assert str(target.parent) in full.message
    assert "Free space at the target" in full.hint
    assert not target.exists()


def test_a_target_that_fills_up_on_the_way_is_left_as_it_was(
    machine: Command, disk: SmallDisk, tmp_path: Path
) -> None:
    """The room is there when the restore looks, and gone when it goes on."""
    _backed_up(machine, tmp_path)
    (disk.path / "kept").write_bytes(b"x" * MIB)
    (disk.path / "kept").chmod(0o604)
    request = RestoreRequest(include=("large/",), to={"docs": f"files://{disk.path}"}, strict=True)
    client = connect("acme", env=machine.environment())
    disk.grow()
    plan = client.plan_restore(request)
    client.begin_restore(plan)
    client.run_phase(plan, Phase.INFRASTRUCTURE_PREPARATION)
    ballast = disk.fill(leaving_mib=8)
    before = trees.state(disk.path)

    words = ("restore", "acme", "--resume", plan.restore)
    full = machine.run(*words, expect=TargetFull.exit_code if IS_ROOT else 3, **disk.limit)

    if IS_ROOT:
        assert "no space left on device" in full.message
        assert trees.state(disk.path) == before
        ballast.unlink()
        again = machine.run(*words, expect=ValidationFailed.exit_code)
        assert "was rolled back" in again.message
    else:
        assert "file too large" in full.out


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_saved(
    machine: Command, tmp_path: Path
) -> None:
    """EIO from the kernel itself."""
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        (FAULTY / FAULTY_FILE).read_bytes()
    machine.run(
        "tenant", "add", "acme", "--region", f"primary=file://{tmp_path / 'repository'}",
        "--source", f"faulty=files://{FAULTY}",
    )  # fmt: skip

    report = machine.report("backup", "acme", expect=3)

    reasons = {each["path"]: each["reason"] for each in report["problems"]}
    assert "input/output error" in reasons[FAULTY_FILE]
    assert report["status"] == "incomplete"
    listed = machine.report("ls", "acme", "latest")["entries"]
    names = {entry["path"] for entry in listed}
    assert "faulty/control" in names
    assert f"faulty/{FAULTY_FILE}" not in names, "what was not read is not there"
    assert machine.report("verify", "acme", "--level", "data")["status"] == "ok"
    assert machine.report("snapshots", "acme")["snapshots"][0]["status"] == "incomplete"


def test_what_this_user_may_not_read_is_named_and_the_rest_is_saved(
    machine: Command, tmp_path: Path
) -> None:
    tree = _tree_of(machine, tmp_path)
    (tree / "secret").write_text("for somebody else")
    (tree / "shut").mkdir()
    (tree / "shut/inside").write_text("likewise")
    (tree / "secret").chmod(0)
    (tree / "shut").chmod(0)

    report = machine.report("backup", "acme", expect=3, ordinary=True)

    told = {each["path"]: each["reason"] for each in report["problems"]}
    assert told.keys() == {"secret", "shut"}
    assert all("permission denied" in reason for reason in told.values())
    assert machine.report("verify", "acme", "--level", "data")["status"] == "ok"
    (tree / "shut").chmod(0o700)


def test_a_source_that_this_user_may_not_read_at_all_makes_no_snapshot(
    machine: Command, tmp_path: Path
) -> None:
    tree = _tree_of(machine, tmp_path)
    tree.chmod(0)

    shut = machine.run("backup", "acme", expect=SourceUnreadable.exit_code, ordinary=True)

    assert str(tree) in shut.message
    assert "permission denied" in shut.message
    assert machine.report("snapshots", "acme")["snapshots"] == []
    tree.chmod(0o755)


def test_a_source_that_is_gone_makes_no_snapshot_of_nothing(
    machine: Command, tmp_path: Path
) -> None:
    """A disk that is not mounted would else look like a tenant who deleted everything."""
    tree = _tree_of(machine, tmp_path)
    machine.run("backup", "acme")
    tree.rename(tmp_path / "elsewhere")

    gone = machine.run("backup", "acme", expect=SourceMissing.exit_code)

    assert str(tree) in gone.message
    assert len(machine.report("snapshots", "acme")["snapshots"]) == 1


def test_a_repository_that_this_user_may_not_read_is_not_taken_for_an_empty_one(
    machine: Command, tmp_path: Path
) -> None:
    _tree_of(machine, tmp_path)
    machine.run("backup", "acme")

    for part in ("", "packs", "index", "snapshots", "keys", "format.json"):
        shut = tmp_path / "repository" / part
        mode = shut.stat().st_mode
        shut.chmod(0)
        denied = machine.run("backup", "acme", expect=StoreDenied.exit_code, ordinary=True)
        shut.chmod(mode)
        assert f"file://{tmp_path}/repository" in denied.message
        assert "permission denied" in denied.message.lower()

    assert machine.report("verify", "acme", "--level", "data")["status"] == "ok"
    assert len(machine.report("snapshots", "acme")["snapshots"]) == 1


def test_a_repository_that_may_only_be_read_says_what_a_restore_needs_of_it(
    machine: Command, tmp_path: Path
) -> None:
    _tree_of(machine, tmp_path)
    machine.run("backup", "acme")
    folders = [path for path in (tmp_path / "repository").rglob("*") if path.is_dir()]
    for path in (tmp_path / "repository", *folders):
        path.chmod(0o500)
    to = f"docs=files://{tmp_path / 'out'}"

    denied = machine.run("restore", "acme", "--to", to, expect=44, ordinary=True)

    assert "journal in the repository" in denied.hint
    assert not (tmp_path / "out").exists()
    machine.run("cat", "acme", "latest", "docs/large/0.bin", "--json", ordinary=True)
    assert machine.report("verify", "acme", "--level", "data", ordinary=True)["status"] == "ok"


def test_a_home_that_cannot_be_written_stops_no_backup_and_says_what_a_restore_needs(
    machine: Command, tmp_path: Path
) -> None:
    _tree_of(machine, tmp_path)
    for folder in ("outbox", "locks"):
        shutil.rmtree(machine.home / folder, ignore_errors=True)
    machine.home.chmod(0o500)
    to = f"docs=files://{tmp_path / 'out'}"

    machine.run("backup", "acme", ordinary=True)
    refused = machine.run("restore", "acme", "--to", to, expect=10, ordinary=True)

    assert "Set KRYONIX_HOME" in refused.hint
    assert not (tmp_path / "out").exists()
    machine.home.chmod(0o700)
    elsewhere = {"KRYONIX_HOME": str(tmp_path / "other")}
    region = f"primary=file://{tmp_path / 'repository'}"
    machine.run("restore", "acme", "--region", region, "--to", to, env=elsewhere)


def test_a_repository_inside_its_own_source_is_refused(machine: Command, tmp_path: Path) -> None:
    """It would be backed up into itself, and grow with every backup."""
    (tmp_path / "tree/kept").mkdir(parents=True)
    (tmp_path / "alias").symlink_to("tree/kept")
    source = ["--source", f"docs=files://{tmp_path / 'tree'}"]
    for place in ("tree", "tree/kept/repository", "alias/repository", "tree/../tree/x"):
        region = ["--region", f"primary=file://{tmp_path / place}"]
        refused = machine.run("tenant", "add", "acme", *region, *source, expect=10)
        assert "is inside source docs" in refused.message
    assert not list((tmp_path / "tree/kept").iterdir())

    region = ["--region", f"primary=file://{tmp_path / 'tree/kept/repository'}"]
    machine.run("tenant", "add", "acme", *region, *source, "--exclude", "docs=/kept/repository/")
    assert machine.report("backup", "acme")["entries"] == 2


def _tree_of(machine: Command, tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    trees.grow(tree, Random(4), small=10, large_mib=1)
    region = f"primary=file://{tmp_path / 'repository'}"
    machine.run("tenant", "add", "acme", "--region", region, "--source", f"docs=files://{tree}")
    return tree
