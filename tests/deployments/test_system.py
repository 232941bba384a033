from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitStrategy

from deployments.specification import DeploymentSpec
from deployments.system import PREFECT_YAML, system_deployments
from kryonix_backup.errors import ConfigError
from kryonix_backup.model import Tier

SPECS = system_deployments()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_entry_point_loads(spec: DeploymentSpec) -> None:
    assert isinstance(spec.flow(), Flow)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_deployment_waits_rather_than_being_lost(spec: DeploymentSpec) -> None:
    assert spec.collision is ConcurrencyLimitStrategy.ENQUEUE
    assert spec.description.endswith(".")


def test_every_tier_can_be_restored() -> None:
    names = {spec.full_name(): spec.pool for spec in SPECS}

    for tier in Tier:
        assert names[f"restore-tenant/restore-{tier.value}"] == tier.value
    assert {"rollback-restore/rollback", "onboard-tenant/onboard"} <= set(names)


def test_nothing_is_pulled_and_no_path_is_stored() -> None:
    plain = yaml.safe_load(PREFECT_YAML.read_text())

    assert plain["pull"] == []
    assert all(":" not in row["entrypoint"] for row in plain["deployments"])


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prefect\.yaml"):
        system_deployments(tmp_path / "prefect.yaml")
