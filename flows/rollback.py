"""The undoing of a restore: one flow for failure, cancellation, crash and the operator."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.parameters import Restore, Tenant
from flows.telling import telling_what_next
from tasks.policy import HOUR_S
from tasks.restore import roll_back_restore


@flow(
    name="rollback-restore",
    flow_run_name="roll back {tenant} {restore}",
    timeout_seconds=6 * HOUR_S,
    description="Put a tenant back to where it was before a restore.",
)
def rollback_restore(
    tenant: Tenant,
    restore: Restore,
    because: str | None = None,
) -> State[str]:
    """
    Put a tenant back to where it was before a restore; may be run again.

    Args:
        tenant: Id of the tenant, such as acme.
        restore: Id of the restore, as its first run named it.
        because: Why, for the audit chain.
    """
    with telling_what_next():
        roll_back_restore(tenant, restore, because)
        return Completed(message=f"restore {restore} is rolled back", data=restore)
