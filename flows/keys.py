"""Rotating a tenant's keys: see what is due, rotate it, report."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.parameters import Tenant
from flows.telling import telling_what_next
from tasks.keys import look_at_keys, report_keys, rotate_due_keys
from tasks.policy import HOUR_S


@flow(
    name="rotate-keys",
    flow_run_name="rotate the keys of {tenant}",
    timeout_seconds=HOUR_S,
    description="Rotate those keys of a tenant that are due by its schedules.",
)
def rotate_keys(tenant: Tenant, *, dry_run: bool = False) -> State[dict[str, Any]]:
    """
    Rotate those keys of a tenant that are due; a dry run says what is.

    Run again after a crash it completes what was begun.

    Args:
        tenant: Id of the tenant, such as acme.
        dry_run: Only say what is due, and change nothing.
    """
    with telling_what_next():
        looked = look_at_keys(tenant)
        report = looked if dry_run else rotate_due_keys(tenant, wait_for=[looked])
        line = report_keys(tenant, report)
        return Completed(message=line, data=report)
