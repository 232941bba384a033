from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter
from prefect.client.schemas.objects import State

from flows.backup import backup_tenant
from flows.restore import restore_tenant
from flows.rollback import rollback_restore
from kryonix_backup.errors import RestoreUnknown, ValidationFailed, WouldOverwrite
from kryonix_backup.model import Phase
from tests.flows.conftest import Tenant


def run(tenant: Tenant, **asked: Any) -> State[dict[str, Any]]:
    return restore_tenant(tenant.id, **asked, return_state=True)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def task_states(state: State[Any]) -> dict[str, str]:
    """The state's name of each task run of a flow run, by the task run's name."""
    assert state.state_details.flow_run_id is not None
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_task_runs(flow_run_filter=chosen, task_run_filter=TaskRunFilter())
    return {each.name: each.state_name or "" for each in found}


@pytest.fixture
def saved(onboarded: Tenant) -> Tenant:
    backup_tenant(onboarded.id)
    return onboarded


@pytest.fixture
def aside(saved: Tenant, tmp_path: Path) -> dict[str, str]:
    return {name: f"files://{tmp_path}/back/{name}" for name in ("documents", "photos")}


def test_a_restore_brings_every_byte_back(
    saved: Tenant, aside: dict[str, str], tmp_path: Path
) -> None:
    state = run(saved, to=aside)

    report = state.result()
    assert report["status"] == "complete"
    assert tree(tmp_path / "back/documents") == tree(saved.documents)
    assert tree(tmp_path / "back/photos") == tree(saved.photos)
    assert report["restore"] in str(state.message)


def test_its_six_phases_are_tasks(saved: Tenant, aside: dict[str, str]) -> None:
    state = run(saved, to=aside)

    state.result()
    names = [phase["name"] for phase in state.result()["phases"]]
    assert names == [phase.label for phase in Phase]


def test_a_restore_does_not_overwrite_and_leaves_everything_as_it_was(saved: Tenant) -> None:
    (saved.documents / "b.txt").write_text("newer")

    state = run(saved)

    assert state.is_failed()
    with pytest.raises(WouldOverwrite):
        state.result()
    assert (saved.documents / "b.txt").read_text() == "newer"


def test_a_restore_overwrites_where_it_is_told_to(saved: Tenant) -> None:
    (saved.documents / "b.txt").write_text("newer")

    assert run(saved, overwrite=True).is_completed()

    assert (saved.documents / "b.txt").read_text() == "b" * 5000


def test_a_finished_restore_resumed_runs_no_phase_again(
    saved: Tenant, aside: dict[str, str]
) -> None:
    restore = run(saved, to=aside).result()["restore"]

    again = run(saved, resume=restore)

    assert again.result()["restore"] == restore
    assert again.result()["status"] == "complete"


def test_the_operator_rolls_a_restore_back(
    saved: Tenant, aside: dict[str, str], tmp_path: Path
) -> None:
    restore = run(saved, to=aside).result()["restore"]

    state = rollback_restore(saved.id, restore, return_state=True)

    assert state.is_completed()
    resumed = run(saved, resume=restore)
    assert not resumed.is_completed()


def test_an_unknown_restore_is_not_resumed(saved: Tenant) -> None:
    with pytest.raises(RestoreUnknown):
        run(saved, resume="20200101t000000z-0123456789abcdef").result()


def test_a_damaged_pack_rolls_everything_back(
    saved: Tenant, aside: dict[str, str], tmp_path: Path
) -> None:
    for pack in (saved.repository / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            pack.write_bytes(b"\0" * pack.stat().st_size)

    state = run(saved, to=aside)

    assert not state.is_completed() or state.result()["status"] != "complete"
    assert not (tmp_path / "back/documents/b.txt").exists()


__all__ = ["ValidationFailed", "task_states"]
