"""A restore: plan it, walk the six phases, and undo everything where a critical one fails."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.hooks import roll_back_cancelled, tell_how_to_resume
from flows.parameters import Restore, Snapshot, Source, Target, Tenant
from flows.rollback import rollback_restore
from kryonix_backup.errors import AlreadyRunning
from kryonix_backup.model import Phase
from kryonix_backup.sdk.client import RestoreRequest
from tasks.policy import HOUR_S
from tasks.report import report_restore, show_plan
from tasks.restore import begin_restore, close_restore, plan_restore, resume_restore, run_phase


def _run_name() -> str:
    asked = runtime.flow_run.parameters
    if asked["resume"]:
        return f"restore {asked['tenant']} resume {asked['resume']}"
    return f"restore {asked['tenant']} {asked['at'] or asked['snapshot']}"


@flow(
    name="restore-tenant",
    flow_run_name=_run_name,
    timeout_seconds=24 * HOUR_S,
    description="Restore a tenant's sources from a snapshot, in six phases.",
    on_cancellation=[roll_back_cancelled],
    on_crashed=[tell_how_to_resume],
)
def restore_tenant(  # noqa: PLR0913  the form that the UI draws
    tenant: Tenant,
    *,
    snapshot: Snapshot = "latest",
    at: Annotated[
        datetime | None, Field(description="Take the newest snapshot of that time instead.")
    ] = None,
    sources: list[Source] | None = None,
    include: Annotated[
        list[str] | None, Field(description="Patterns of paths; empty brings everything back.")
    ] = None,
    to: Annotated[
        dict[Source, Target] | None, Field(description="Another address for a source, by its name.")
    ] = None,
    strict: Annotated[bool, Field(description="Whether every phase is critical.")] = False,
    overwrite: Annotated[bool, Field(description="Whether to replace what is there.")] = False,
    resume: Annotated[
        Restore | None, Field(description="Go on with this restore; the rest is ignored.")
    ] = None,
) -> State[dict[str, Any]]:
    """
    Restore a tenant's sources from a snapshot, in six phases.

    A critical phase that fails rolls everything back; another one leaves the result degraded.
    """
    if resume is not None:
        plan = resume_restore(tenant, resume)
    else:
        plan = plan_restore(
            tenant,
            RestoreRequest(
                snapshot,
                at,
                tuple(sources or ()),
                tuple(include or ()),
                to or {},
                strict,
                overwrite,
            ),
        )
    show_plan(tenant, plan)
    if resume is None:
        begin_restore(tenant, plan)
    try:
        for phase in Phase:
            run_phase(tenant, plan, phase.label)
    except AlreadyRunning:
        raise  # another run is at it: its work is not ours to undo
    except Exception as error:
        rollback_restore(tenant, plan["restore"], because=str(error))
        raise
    report = close_restore(tenant, plan)
    line = report_restore(tenant, report)
    return Completed(message=line, data=report)
