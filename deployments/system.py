"""The few deployments that no tenant owns, read from ``prefect.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from prefect.client.schemas.objects import ConcurrencyLimitStrategy

from deployments.specification import DeploymentSpec
from kryonix_backup.errors import ConfigError
from kryonix_backup.sdk.limits import Terms, Tiers

_RESTORE = "flows.restore.restore_tenant"
PREFECT_YAML = Path(__file__).resolve().parent.parent / "prefect.yaml"


def system_deployments(tiers: Tiers, path: Path = PREFECT_YAML) -> list[DeploymentSpec]:
    """
    What ``prefect deploy --all`` would write, for the tiers that there are; raises ConfigError.

    Each tier's restore is made from the file's first one. A deployment that belongs to no tier runs
    in the pool that the file names, or in the default tier's where there is no such pool.
    """
    try:
        plain = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path.name} cannot be read: {error.strerror}",
            "Install kryonix-backup again: the file belongs beside its packages.",
        ) from error
    rows = plain["deployments"]
    restores = [row for row in rows if row["entrypoint"] == _RESTORE]
    others = [_spec(row) for row in rows if row["entrypoint"] != _RESTORE]
    return [
        *(_restore(_spec(restores[0]), tier) for tier in tiers),
        *(each if each.pool in tiers else replace(each, pool=tiers.default) for each in others),
    ]


def _restore(spec: DeploymentSpec, tier: Terms) -> DeploymentSpec:
    return replace(
        spec,
        name=f"restore-{tier.name}",
        pool=tier.name,
        description=f"Restore a tenant of the {tier.name} tier; nothing is overwritten unless you"
        " say so.",
        limit=tier.limits.workers,
        tags=("restore", f"tier:{tier.name}"),
    )


def _spec(row: Mapping[str, Any]) -> DeploymentSpec:
    pool, limit = row["work_pool"], row["concurrency_limit"]
    return DeploymentSpec(
        entrypoint=row["entrypoint"],
        name=row["name"],
        pool=pool["name"],
        queue=pool["work_queue_name"],
        description=" ".join(row["description"].split()),
        limit=limit["limit"],
        collision=ConcurrencyLimitStrategy(limit["collision_strategy"]),
        parameters=dict(row.get("parameters") or {}),
        tags=tuple(row.get("tags") or ()),
    )
