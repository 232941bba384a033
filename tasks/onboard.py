"""The steps of taking a tenant on as tasks."""

from __future__ import annotations

from typing import Any

from prefect import task

from kryonix_backup.sdk.client import Client
from tasks.connection import load_tenant, run_environment
from tasks.policy import HOUR_S, MINUTE_S, POLICY
from tasks.run import note_facts, tag_run


@task(
    name="check the tenant's settings",
    task_run_name="check the settings of {tenant}",
    timeout_seconds=10 * MINUTE_S,
    **POLICY,
)
def check_settings(tenant: str) -> dict[str, Any]:
    """The tenant's settings, once they and the way to its key are known to be usable."""
    settings, _ = load_tenant(tenant)
    tag_run(f"tenant:{tenant}", f"tier:{settings.tier}", "onboard")
    return settings.to_plain()


@task(
    name="make the repository",
    task_run_name="make the repository of {tenant}",
    timeout_seconds=HOUR_S,
    **POLICY,
)
def make_repository(tenant: str) -> None:
    """Make the tenant's repository in each of its regions; one of its own that is there stays."""
    Client.onboard(*load_tenant(tenant), env=run_environment())
    note_facts(tenant, status="complete")
