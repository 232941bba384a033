from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitStrategy

from deployments.specification import DeploymentSpec
from deployments.system import PREFECT_YAML, system_deployments
from kryonix_backup.errors import ConfigError
from kryonix_backup.model import Tier
from kryonix_backup.sdk.limits import Tiers, load_tiers

TIERS = load_tiers({})
SPECS = system_deployments(TIERS)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_entry_point_loads(spec: DeploymentSpec) -> None:
    assert isinstance(spec.flow(), Flow)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_deployment_waits_rather_than_being_lost(spec: DeploymentSpec) -> None:
    assert spec.collision is ConcurrencyLimitStrategy.ENQUEUE
    assert spec.description.endswith(".")


def test_every_tier_can_be_restored() -> None:
    names = {spec.full_name(): spec.pool for spec in SPECS}

    for tier in TIERS.names:
        assert names[f"restore-tenant/restore-{tier}"] == tier
    assert {"rollback-restore/rollback", "onboard-tenant/onboard"} <= set(names)


def test_nothing_is_pulled_and_no_path_is_stored() -> None:
    plain = yaml.safe_load(PREFECT_YAML.read_text())

    assert plain["pull"] == []
    assert all(":" not in row["entrypoint"] for row in plain["deployments"])


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prefect\.yaml"):
        system_deployments(TIERS, tmp_path / "prefect.yaml")


def test_the_file_says_of_the_shipped_tiers_what_follows_from_them() -> None:
    rows = yaml.safe_load(PREFECT_YAML.read_text())["deployments"]

    assert [
        (row["name"], row["work_pool"]["name"], row["work_pool"]["work_queue_name"],
         row["concurrency_limit"]["limit"], tuple(row["tags"]), row["description"])
        for row in rows
    ] == [
        (spec.name, spec.pool, spec.queue, spec.limit, spec.tags, spec.description)
        for spec in SPECS
    ]  # fmt: skip


def test_a_tier_more_is_a_restore_more_and_other_names_leave_none_without_a_pool() -> None:
    gold = replace(TIERS.of("standard"), name=Tier("gold"))
    only = Tiers(TIERS.file, gold.name, (gold,))

    assert [spec.pool for spec in system_deployments(only)] == ["gold"] * 3
    more = system_deployments(replace(TIERS, terms=(*TIERS, gold)))
    assert "restore-tenant/restore-gold" in [spec.full_name() for spec in more]
