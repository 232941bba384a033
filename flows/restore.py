"""A restore: plan it, walk the six phases, and undo everything where a critical one fails."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.hooks import roll_back_cancelled, tell_how_to_resume
from flows.parameters import Restore, Snapshot, Source, Target, Tenant
from flows.rollback import rollback_restore
from flows.telling import telling_what_next
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
    at: datetime | None = None,
    sources: list[Source] | None = None,
    include: list[str] | None = None,
    to: dict[Source, Target] | None = None,
    strict: bool = False,
    overwrite: bool = False,
    resume: Restore | None = None,
) -> State[dict[str, Any]]:
    """
    Restore a tenant's sources from a snapshot, in six phases.

    A critical phase that fails rolls everything back; another one leaves the result degraded.

    Args:
        tenant: Id of the tenant, such as acme.
        snapshot: A snapshot's id, the beginning of one, or latest.
        at: Bring back how it was at this time, in place of a snapshot: the newest one finished by
            then and, of a source that keeps a log, every commit up to it.
        sources: Only these sources, by name; empty means all of the tenant's.
        include: Only paths that fit these gitignore patterns; empty means all.
        to: Where a source goes, in place of where it came from, by its name, such as
            {"documents": "files:///srv/back"}. An address holds no password.
        strict: Undo everything where any phase fails, not only a critical one.
        overwrite: Replace what is at the target; without it nothing that is there is touched.
        resume: Id of a restore that was stopped, to go on with; only the tenant is looked at then.
    """
    with telling_what_next():
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
