"""The steps of taking a tenant on as tasks."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task

from kryonix_backup.sdk.onboarding import Onboarding, Step
from tasks.connection import load_tenant, run_environment
from tasks.policy import HOUR_S, MINUTE_S, POLICY
from tasks.run import note_facts, tag_run

STEPS = tuple(step.value for step in Step)


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
    name="take a step of the onboarding",
    task_run_name="{step} of {tenant}",
    timeout_seconds=HOUR_S,
    **POLICY,
)
def onboarding_step(tenant: str, step: str) -> dict[str, Any]:
    """Do one step, or do it again; what it came to."""
    onboarding = _onboarding(tenant)
    facts = onboarding.run(Step(step))
    if step == STEPS[-1]:
        onboarding.finish()
        note_facts(tenant, status="complete")
    return facts


@task(
    name="take the onboarding back",
    task_run_name="take back what was made for {tenant}",
    timeout_seconds=HOUR_S,
    **POLICY,
)
def take_back(tenant: str) -> list[str]:
    """Take back what the onboarding has made; what could not be."""
    left = _onboarding(tenant).undo()
    for each in left:
        get_run_logger().error("not taken back: %s", each)
    return left


def _onboarding(tenant: str) -> Onboarding:
    settings, root = load_tenant(tenant)
    return Onboarding(settings, root, env=run_environment())
