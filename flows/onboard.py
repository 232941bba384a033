"""Taking a tenant on: check its settings, make its repository, show it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.parameters import Tenant
from tasks.onboard import check_settings, make_repository
from tasks.policy import HOUR_S
from tasks.report import report_tenant


@flow(
    name="onboard-tenant",
    flow_run_name="onboard {tenant}",
    timeout_seconds=HOUR_S,
    description="Make a new tenant's repository in each of its regions.",
)
def onboard_tenant(tenant: Tenant) -> State[dict[str, Any]]:
    """Make a new tenant's repository in each of its regions; may be run again."""
    settings = check_settings(tenant)
    made = make_repository(tenant, wait_for=[settings])
    line = report_tenant(tenant, settings, wait_for=[made])
    return Completed(message=line, data=settings)
