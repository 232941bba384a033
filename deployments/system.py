"""The few deployments that no tenant owns, read from ``prefect.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.client.schemas.objects import ConcurrencyLimitStrategy

from deployments.specification import DeploymentSpec
from kryonix_backup.errors import ConfigError

PREFECT_YAML = Path(__file__).resolve().parent.parent / "prefect.yaml"


def system_deployments(path: Path = PREFECT_YAML) -> list[DeploymentSpec]:
    """What ``prefect deploy --all`` would write; raises ConfigError."""
    try:
        plain = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path.name} cannot be read: {error.strerror}",
            "Install kryonix-backup again: the file belongs beside its packages.",
        ) from error
    return [_spec(row) for row in plain["deployments"]]


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
