from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State

from flows.restore import restore_tenant
from flows.rollback import rollback_restore
from kryonix_backup.errors import RestoreUnknown, ValidationFailed, WouldOverwrite
from kryonix_backup.model import Phase
from kryonix_backup.sdk.client import RestoreRequest
from tasks.restore import CHECKPOINTED
from tests.flows.conftest import Tenant, state_of


def run(tenant: Tenant, **asked: Any) -> State[dict[str, Any]]:
    return state_of(restore_tenant, tenant.id, **asked)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def phases(state: State[Any]) -> dict[str, str]:
    """How the task of each phase ended."""
    assert state.state_details.flow_run_id is not None
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_task_runs(flow_run_filter=chosen)
    return {each.name.split()[0]: each.state_name or "" for each in found}


@pytest.fixture
def saved(onboarded: Tenant) -> Tenant:
    """A tenant with one snapshot."""
    onboarded.client().backup()
    return onboarded


@pytest.fixture
def aside(saved: Tenant, tmp_path: Path) -> dict[str, str]:
    return {name: f"files://{tmp_path}/back/{name}" for name in ("documents", "photos")}


def test_a_restore_brings_every_byte_back_in_six_phases(
    saved: Tenant, aside: dict[str, str], tmp_path: Path
) -> None:
    state = run(saved, to=aside)

    report = state.result()
    assert report["status"] == "complete"
    assert report["restore"] in str(state.message)
    assert tree(tmp_path / "back/documents") == tree(saved.documents)
    assert tree(tmp_path / "back/photos") == tree(saved.photos)
    assert [phase["name"] for phase in report["phases"]] == [phase.label for phase in Phase]


def test_a_finished_restore_resumed_runs_no_phase_again(
    saved: Tenant, aside: dict[str, str]
) -> None:
    first = run(saved, to=aside).result()

    again = run(saved, resume=first["restore"])

    assert again.result() == first
    assert {name for name, state in phases(again).items() if state == "Cached"} == {
        phase.label for phase in CHECKPOINTED
    }


def test_a_restore_that_stopped_half_way_is_resumed_or_rolled_back(
    saved: Tenant, aside: dict[str, str], tmp_path: Path
) -> None:
    client = saved.client()
    one, other = (client.plan_restore(RestoreRequest(to=aside)) for _ in range(2))
    for plan in (one, other):
        client.begin_restore(plan)
    client.run_phase(one, Phase.INFRASTRUCTURE_PREPARATION)
    client.run_phase(one, Phase.FILE_STORAGE_RESTORE)

    rolled_back = rollback_restore(saved.id, one.restore, return_state=True)
    too_late = run(saved, resume=one.restore)
    resumed = run(saved, resume=other.restore)

    assert rolled_back.is_completed()
    with pytest.raises(ValidationFailed, match="was rolled back"):
        too_late.result()
    assert resumed.result()["restore"] == other.restore
    assert tree(tmp_path / "back/documents") == tree(saved.documents)


def test_a_restore_does_not_overwrite_unless_it_is_told_to(saved: Tenant) -> None:
    (saved.documents / "b.txt").write_text("newer")

    refused = run(saved)

    assert (saved.documents / "b.txt").read_text() == "newer"
    with pytest.raises(WouldOverwrite):
        refused.result()
    assert run(saved, overwrite=True).is_completed()
    assert (saved.documents / "b.txt").read_text() == "b" * 5000


def test_an_unknown_restore_is_not_resumed(saved: Tenant) -> None:
    with pytest.raises(RestoreUnknown):
        run(saved, resume="20200101t000000z-0123456789abcdef").result()


def test_what_cannot_be_read_is_never_put_in_place(
    saved: Tenant, aside: dict[str, str], tmp_path: Path
) -> None:
    for pack in (saved.repository / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            pack.write_bytes(b"\0" * pack.stat().st_size)

    state = run(saved, to=aside)

    assert not state.is_completed() or state.result()["status"] == "failed"
    assert tree(tmp_path / "back") == {}
