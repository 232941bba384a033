"""Taking a tenant on, in six steps; what fails is taken back."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.parameters import Tenant
from flows.telling import telling_what_next
from kryonix_backup.errors import KryonixError
from tasks.onboard import STEPS, check_settings, onboarding_step, take_back
from tasks.policy import HOUR_S
from tasks.report import report_tenant


@flow(
    name="onboard-tenant",
    flow_run_name="onboard {tenant}",
    timeout_seconds=HOUR_S,
    description="Take a new tenant on in six steps: isolation, encryption, storage, compliance,"
    " optimisation and monitoring.",
)
def onboard_tenant(tenant: Tenant) -> State[dict[str, Any]]:
    """
    Take a new tenant on in six steps; run again it completes or proves them.

    What fails takes back everything that this onboarding has made.

    Args:
        tenant: Id of the tenant, such as acme; its block has to be saved before.
    """
    with telling_what_next():
        settings = check_settings(tenant)
        done: dict[str, Any] = {}
        try:
            for step in STEPS:
                done[step] = onboarding_step(tenant, step)
        except (KryonixError, TimeoutError):
            take_back(tenant)
            raise
        line = report_tenant(tenant, settings, done)
        return Completed(message=line, data={**settings, "onboarding": done})
