from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact, State
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ParameterTypeError

from deployments.pools import keep_tenant_limit
from flows.backup import backup_tenant
from kryonix_backup.errors import ConfigError, SourceMissing, TenantUnknown
from kryonix_backup.model import BackupKind, TenantId
from tasks.policy import BACKUPS_LIMIT, tenant_limit
from tasks.run import artifacts, facts_of
from tests.flows.conftest import Tenant, state_of


def run(tenant: str, *arguments: Any) -> State[dict[str, Any]]:
    return state_of(backup_tenant, tenant, *arguments)


def shown(state: State[Any]) -> list[Artifact]:
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        return artifacts(client, state.state_details.flow_run_id)


def test_a_backup_publishes_a_snapshot_and_shows_it(onboarded: Tenant) -> None:
    state = run(onboarded.id)

    report = state.result()
    assert report["status"] == "complete"
    assert [snapshot.id for snapshot in onboarded.client().snapshots()] == [report["snapshot"]]
    by_key = {artifact.key: artifact for artifact in shown(state)}
    table = json.loads(str(by_key[f"backup-{onboarded.id}"].data))
    assert [row["Source"] for row in table] == ["documents", "photos", "total"]
    assert report["snapshot"] in str(by_key[f"snapshot-{onboarded.id}"].data)
    bars = [artifact for artifact in by_key.values() if artifact.type == "progress"]
    assert [float(str(bar.data)) for bar in bars] == [100.0, 100.0]


def test_the_run_is_found_by_its_name_tags_and_facts(onboarded: Tenant) -> None:
    state = run(onboarded.id, BackupKind.INCREMENTAL)

    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(state.state_details.flow_run_id)
    assert found.name == f"backup {onboarded.id} incremental"
    assert {f"tenant:{onboarded.id}", "tier:standard"} <= set(found.tags)
    assert facts_of(shown(state)) == {
        "snapshot": state.result()["snapshot"],
        "status": "complete",
    }


def test_what_is_stored_is_not_stored_again(onboarded: Tenant) -> None:
    run(onboarded.id)
    before = onboarded.stored()

    again = run(onboarded.id).result()

    assert again["bytes_new"] < 5000  # leaves of the trees
    assert again["bytes_read"] > 600_000
    assert {name for name in onboarded.stored() if name in before} == set(before)


def test_only_the_named_sources_are_backed_up(onboarded: Tenant) -> None:
    report = run(onboarded.id, BackupKind.FULL, ["photos"]).result()

    assert list(report["sources"]) == ["photos"]


def test_a_backup_with_problems_completes_and_counts_them(onboarded: Tenant) -> None:
    (onboarded.documents / "plan").symlink_to("/dev/null")
    (onboarded.documents / "in" / "gone").write_text("x")
    state = run(onboarded.id)
    count = len(state.result()["problems"])

    assert state.is_completed()
    assert (f"{count} entries could not be saved" in str(state.message)) == (count > 0)


def test_a_source_that_is_not_there_publishes_nothing(onboarded: Tenant) -> None:
    for path in sorted(onboarded.photos.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    onboarded.photos.rmdir()

    state = run(onboarded.id)

    assert state.is_failed()
    with pytest.raises(SourceMissing):
        state.result()
    assert onboarded.client().snapshots() == []


def test_a_source_of_another_name_is_refused_before_any_is_read(onboarded: Tenant) -> None:
    with pytest.raises(ConfigError, match="databases"):
        run(onboarded.id, BackupKind.FULL, ["databases"]).result()

    assert onboarded.stored() == {}


def test_an_unknown_tenant_is_named(prefect_server: None) -> None:
    with pytest.raises(TenantUnknown, match="nobody"):
        run("nobody").result()


@pytest.mark.parametrize("name", ["../x", "", "a" * 41, "Ünïcode", "a'; drop table", "-a", "a-"])
def test_a_hostile_tenant_id_is_refused(prefect_server: None, name: str) -> None:
    with pytest.raises(ParameterTypeError):
        backup_tenant(name)


def test_who_waits_for_a_slot_of_its_tenant_takes_none_of_all(onboarded: Tenant) -> None:
    with get_client(sync_client=True) as client:
        keep_tenant_limit(client, TenantId(onboarded.id), 1)
        with concurrency(tenant_limit(onboarded.id)), ThreadPoolExecutor(1) as pool:
            running = pool.submit(run, onboarded.id)
            with pytest.raises(TimeoutError):
                running.result(timeout=1)
            assert client.read_global_concurrency_limit_by_name(BACKUPS_LIMIT).active_slots == 0
            client.upsert_global_concurrency_limit_by_name(tenant_limit(onboarded.id), 2)
            assert running.result(timeout=60).is_completed()
