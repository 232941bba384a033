"""A deployment as a value, and how it is written to the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

VERSION = version("kryonix-backup")


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """
    Which flow runs where, with what.

    ``entrypoint`` is a dotted name such as ``flows.backup.backup_tenant``: workers import the
    installed package, so no code is copied and no path of a machine is stored.
    """

    entrypoint: str
    name: str
    pool: str
    queue: str
    description: str
    limit: int
    collision: ConcurrencyLimitStrategy
    parameters: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    cron: str | None = None

    def flow(self) -> Flow[..., Any]:
        """The flow itself, imported."""
        return load_flow_from_entrypoint(self.entrypoint, use_placeholder_flow=False)

    def full_name(self) -> str:
        """The name by which Prefect runs it: flow and deployment."""
        return f"{self.flow().name}/{self.name}"

    def to_plain(self) -> dict[str, Any]:
        """The specification as a dry run prints it."""
        return {
            "deployment": self.full_name(),
            "pool": self.pool,
            "queue": self.queue,
            "parameters": self.parameters,
            "schedule": self.cron,
            "limit": self.limit,
            "collision": self.collision.value,
            "tags": list(self.tags),
        }


def apply(client: SyncPrefectClient, spec: DeploymentSpec, *, active: bool | None = None) -> UUID:
    """
    Create the deployment, or bring it up to date; its id.

    ``active`` switches its schedule; None keeps what the operator chose, and a new one off.
    """
    flow = spec.flow()
    return client.create_deployment(
        flow_id=client.create_flow(flow),
        name=spec.name,
        version=VERSION,
        entrypoint=spec.entrypoint,
        pull_steps=[],
        description=spec.description,
        parameters=spec.parameters,
        tags=list(spec.tags),
        work_pool_name=spec.pool,
        work_queue_name=spec.queue,
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        concurrency_limit=spec.limit,
        concurrency_options=ConcurrencyOptions(collision_strategy=spec.collision),
        schedules=_schedules(client, spec, active=active),
    )


def _schedules(
    client: SyncPrefectClient, spec: DeploymentSpec, *, active: bool | None
) -> list[DeploymentScheduleCreate]:
    if spec.cron is None:
        return []
    if active is None:
        active = _is_active(client, spec)
    schedule = CronSchedule(cron=spec.cron, timezone="UTC")
    return [DeploymentScheduleCreate(schedule=schedule, active=active, slug=spec.name)]


def _is_active(client: SyncPrefectClient, spec: DeploymentSpec) -> bool:
    try:
        there = client.read_deployment_by_name(spec.full_name())
    except ObjectNotFound:
        return False
    return any(schedule.active for schedule in there.schedules)
