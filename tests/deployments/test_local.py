"""The local server and its workers, through the command, as an operator meets them."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.local import LocalServer, start
from deployments.process import start_time
from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import ConfigError
from kryonix_backup.sdk.client import Client
from kryonix_backup.settings import RootKey, Secret, TenantSettings
from tests.deployments.conftest import PASSPHRASE, Kryonix

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

MIB = 1 << 20
FILES = 16


def children(pid: int) -> Iterator[int]:
    """Every process below that one, the nearest first."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from children(int(child))


def kill_flow_of(worker: int) -> None:
    """The process that runs a flow is the last one below its worker."""
    os.kill(list(children(worker))[-1], signal.SIGKILL)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def staged(root: Path) -> int:
    """How many bytes a restore has written beside its target, or into it."""
    found = 0
    for place in root.iterdir():
        if place.name not in {"globex", "globex-primary", "home", "acme", "acme-primary", "back"}:
            for path in [place, *place.rglob("*")]:
                with contextlib.suppress(FileNotFoundError):
                    found += path.stat().st_size if path.is_file() else 0
    return found


def same(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in other.iterdir())
    return sorted(path.name for path in one.iterdir()) == names and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in names
    )


def ask(up: dict[str, Any], path: str, body: dict[str, Any]) -> Any:
    """What the server's API answers."""
    request = urllib.request.Request(
        f"{up['api']}/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def logs(up: dict[str, Any], flow_run: str) -> str:
    found = ask(up, "logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run]}}})
    return "\n".join(each["message"] for each in found)


def test_up_names_its_address_its_pools_and_its_workers(up: dict[str, Any]) -> None:
    assert up["api"] == up["url"] + "/api"
    assert up["pools"] == ["enterprise", "professional", "standard"]
    assert [worker["pool"] for worker in up["workers"]] == up["pools"]
    assert all(worker["running"] for worker in up["workers"])


def test_up_again_changes_nothing(kryonix: Kryonix, up: dict[str, Any]) -> None:
    assert kryonix.run("up") == up
    assert kryonix.run("status")["running"] is True


def test_a_worker_that_was_lost_is_started_again(kryonix: Kryonix, up: dict[str, Any]) -> None:
    lost = up["workers"][1]["pid"]
    os.kill(lost, signal.SIGKILL)
    while start_time(lost) is not None:
        time.sleep(0.02)

    assert kryonix.run("status", code=1)["running"] is False
    workers = kryonix.run("up")["workers"]

    assert all(worker["running"] for worker in workers)
    assert workers[0] == up["workers"][0]
    assert workers[1]["pid"] != lost


def test_the_picture_of_the_blocks_is_served_here(up: dict[str, Any]) -> None:
    with urllib.request.urlopen(up["url"] + "/kryonix/logo.svg") as answer:
        assert b"<svg" in answer.read()


def test_a_backup_is_watched_to_its_end(
    kryonix: Kryonix, acme: TenantSettings, up: dict[str, Any]
) -> None:
    result = kryonix.run("flow", "backup", "acme", "--watch")

    assert (result["state"], result["status"]) == ("Completed", "complete")
    assert result["name"] == "backup acme full"
    assert result["url"].startswith(up["url"])
    assert [row["Source"] for row in result["table"]] == ["documents", "photos", "total"]
    client = Client(acme, RootKey(passphrase=Secret(PASSPHRASE)))
    assert result["snapshot"] == client.snapshots()[-1].id


def test_a_restore_through_its_deployment_brings_every_byte_back(
    kryonix: Kryonix, acme: TenantSettings
) -> None:
    back = kryonix.root / "back"
    kryonix.run("flow", "backup", "acme", "kind=incremental", "--watch")
    to = f'to={{"documents": "files://{back}/documents", "photos": "files://{back}/photos"}}'

    result = kryonix.run("flow", "restore", "acme", to, "--watch")

    assert (result["state"], result["status"]) == ("Completed", "complete")
    for name in ("documents", "photos"):
        for path in (kryonix.root / "acme" / name).iterdir():
            assert (back / name / path.name).read_bytes() == path.read_bytes()


def test_a_wrong_parameter_is_refused_before_anything_is_queued(
    kryonix: Kryonix, acme: TenantSettings
) -> None:
    answer = kryonix.run("flow", "restore", "acme", "snapshot=../x", code=2)
    typo = kryonix.run("flow", "backup", "acme", "knd=full", code=2)

    assert "snapshot" in answer["error"]["message"]
    assert "It takes: at, include, overwrite," in answer["error"]["hint"]
    assert "has no parameter 'knd'" in typo["error"]["message"]
    assert typo["error"]["hint"] == "It takes: kind, sources."


@pytest.fixture(scope="module")
def globex(kryonix: Kryonix, up: dict[str, Any]) -> Path:
    """The documents of an onboarded tenant, enough of them to be in the middle of."""
    data = kryonix.root / "globex"
    data.mkdir()
    for number in range(FILES):
        (data / f"{number:02}.bin").write_bytes(os.urandom(32 * MIB))
    kryonix.add_tenant("globex", "professional", data=data)
    kryonix.run("flow", "onboard", "globex", "--watch")
    return data


def test_a_backup_killed_in_the_middle_goes_on_when_run_again(
    kryonix: Kryonix, globex: Path
) -> None:
    worker = kryonix.run("status")["workers"][1]["pid"]
    with kryonix.start("flow", "backup", "globex", "--watch", "--json") as process:
        wait_until(lambda: len(kryonix.packs("globex")) >= 4, process)
        kill_flow_of(worker)
        process.communicate(timeout=60)
        assert process.returncode == 1
    before = kryonix.packs("globex")
    assert sum(before.values()) < FILES * 32 * MIB

    result = kryonix.run("flow", "backup", "globex", "--watch")

    after = kryonix.packs("globex")
    assert result["status"] == "complete"
    assert before.items() <= after.items()
    assert sum(after.values()) < 1.02 * FILES * 32 * MIB


def test_a_restore_killed_in_the_middle_is_resumed(
    kryonix: Kryonix, globex: Path, up: dict[str, Any]
) -> None:
    back = kryonix.root / "resumed"
    worker = kryonix.run("status")["workers"][1]["pid"]
    to = f'to={{"data": "files://{back}"}}'
    with kryonix.start("flow", "restore", "globex", to, "--watch", "--json") as process:
        wait_until(lambda: staged(kryonix.root) > 2 * 32 * MIB, process)
        kill_flow_of(worker)
        killed = json.loads(process.communicate(timeout=60)[0])
    assert killed["state"] == "Crashed"
    assert not (back / "00.bin").exists()

    result = kryonix.run("flow", "restore", "globex", f"resume={killed['restore']}", "--watch")

    assert (result["state"], result["status"]) == ("Completed", "complete")
    assert f"resume={killed['restore']}" in logs(up, killed["flow_run"])
    assert same(back, globex)


def test_a_cancelled_restore_is_rolled_back(
    kryonix: Kryonix, globex: Path, up: dict[str, Any]
) -> None:
    back = kryonix.root / "cancelled"
    to = f'to={{"data": "files://{back}"}}'
    staged_before = staged(kryonix.root)
    run = kryonix.run("flow", "restore", "globex", to)["flow_run"]
    while staged(kryonix.root) <= staged_before + 32 * MIB:
        time.sleep(0.02)

    ask(up, f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    runs = {"flow_runs": {"tags": {"all_": ["tenant:globex"]}}, "sort": "START_TIME_DESC"}
    end = time.monotonic() + 90
    while time.monotonic() < end:
        rollbacks = [
            each for each in ask(up, "flow_runs/filter", runs) if "roll back" in each["name"]
        ]
        if rollbacks and rollbacks[0]["state_type"] == "COMPLETED":
            break
        time.sleep(0.5)
    assert [each["state_type"] for each in rollbacks] == ["COMPLETED"], kryonix.logs()
    assert not back.exists() or not any(back.iterdir())
    assert staged(kryonix.root) == staged_before


def test_nothing_left_this_machine(kryonix: Kryonix, acme: TenantSettings) -> None:
    outbound = kryonix.root / "outbound"

    assert not outbound.exists(), outbound.read_text()


def test_no_secret_is_in_what_prefect_keeps(kryonix: Kryonix, acme: TenantSettings) -> None:
    kept = [path for path in (kryonix.root / "home/prefect").rglob("*") if path.is_file()]

    assert any(path.name == "prefect.db" for path in kept)
    assert not [path for path in kept if PASSPHRASE.encode() in path.read_bytes()]


def test_what_is_down_can_be_asked_about(tmp_path: Path) -> None:
    assert LocalServer.load(tmp_path) is None


def test_nothing_is_started_for_tiers_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "tiers.yaml").write_text("none")

    with pytest.raises(ConfigError):
        start(tmp_path, {"KRYONIX_TIERS": str(tmp_path / "tiers.yaml")}, SystemClock())

    assert not (tmp_path / "server.log").exists()
