"""
What the worker does when the process of a run is gone.

These run in the worker, where nothing of the run is left but its record on the server.
"""

from __future__ import annotations

from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.logging.loggers import flow_run_logger

from tasks.run import artifacts, facts_of

ROLLBACK_DEPLOYMENT = "rollback-restore/rollback"
_FOLLOW_DEPLOYMENT = "follow-logs/{pool}"


def roll_back_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Start the rollback of a cancelled restore; however often this is called, it runs once."""
    restore = _restore_of(flow_run)
    if restore is None:
        return
    run_deployment(
        ROLLBACK_DEPLOYMENT,
        parameters={"tenant": flow_run.parameters["tenant"], "restore": restore},
        timeout=0,
        as_subflow=False,
        idempotency_key=f"rollback-{flow_run.id}",
        tags=[f"tenant:{flow_run.parameters['tenant']}"],
    )
    flow_run_logger(flow_run).warning("cancelled: restore %s is being rolled back", restore)


def tell_how_to_resume(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Say how a crashed restore goes on; its finished phases are not run again."""
    if (restore := _restore_of(flow_run)) is not None:
        flow_run_logger(flow_run).error(
            "crashed: go on with 'kryonix flow restore %s resume=%s',"
            " or undo it with 'kryonix flow rollback %s restore=%s'",
            flow_run.parameters["tenant"], restore, flow_run.parameters["tenant"], restore,
        )  # fmt: skip


def follow_again(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Start a successor of the run that followed a pool's logs; a crash is told of twice."""
    pool = flow_run.parameters["pool"]
    run_deployment(
        _FOLLOW_DEPLOYMENT.format(pool=pool),
        timeout=0,
        as_subflow=False,
        idempotency_key=f"follow-after-{flow_run.id}",
    )
    flow_run_logger(flow_run).warning("crashed: a successor follows the logs of %s", pool)


def _restore_of(flow_run: FlowRun) -> str | None:
    with get_client(sync_client=True) as client:
        return facts_of(artifacts(client, flow_run.id)).get("restore")
