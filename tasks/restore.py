"""The steps of a restore as tasks: plan it, begin or resume it, run each phase, close it."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.states import Completed

from blocks.names import qualified
from kryonix_backup.model import Phase
from kryonix_backup.sdk.client import RestorePlan, RestoreRequest
from tasks.connection import connect
from tasks.policy import HOUR_S, MINUTE_S, POLICY, Policy
from tasks.progress import ProgressBoard
from tasks.report import phase_line
from tasks.run import note_facts, tag_run

Plain = dict[str, Any]


# After these the tenant's data is as far as the journal says, and a resumed run skips them. The
# first and the last are always asked of the engine, which refuses a restore that was rolled back.
CHECKPOINTED = frozenset(
    {
        Phase.DATABASE_RESTORE,
        Phase.CACHE_AND_SESSION_RESTORE,
        Phase.FILE_STORAGE_RESTORE,
        Phase.MESSAGING_RESTORE,
    }
)


def checkpoint_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    """
    Where a phase's result is kept: by restore and phase, the same in every process.

    A restore that was rolled back is never run again under its id, so that no new attempt meets
    an old answer. None where the answer is not to be kept.
    """
    restore, phase = parameters["plan"]["restore"], parameters["phase"]
    if Phase[phase.upper()] not in CHECKPOINTED:
        return None
    return f"restore-{parameters['tenant']}-{restore}-{phase}"


CHECKPOINT = Policy(
    **{
        **POLICY,
        "persist_result": True,
        "result_serializer": "json",
        "cache_policy": CacheKeyFnPolicy(cache_key_fn=checkpoint_key),
    }
)


@task(
    name="plan the restore",
    task_run_name="plan the restore of {tenant}",
    timeout_seconds=HOUR_S,
    **POLICY,
)
def plan_restore(tenant: str, request: RestoreRequest) -> Plain:
    """Work out what will be restored to where, without changing anything."""
    return connect(tenant).plan_restore(request).to_plain()


@task(
    name="begin the restore",
    task_run_name="begin the restore of {tenant}",
    timeout_seconds=10 * MINUTE_S,
    **POLICY,
)
def begin_restore(tenant: str, plan: Plain) -> None:
    """Write the plan into the journal: from here on the restore can be resumed."""
    connect(tenant).begin_restore(RestorePlan.from_plain(plan))
    _announce(tenant, plan["restore"])


@task(
    name="resume the restore",
    task_run_name="resume the restore of {tenant}",
    timeout_seconds=10 * MINUTE_S,
    **POLICY,
)
def resume_restore(tenant: str, restore: str) -> Plain:
    """The plan of a restore that was begun; its finished phases are not run again."""
    plan = connect(tenant).resume_restore(restore).to_plain()
    _announce(tenant, restore)
    return plan


@task(
    name="run a phase",
    task_run_name="{phase} of {tenant}",
    timeout_seconds=24 * HOUR_S,
    **CHECKPOINT,
)
def run_phase(tenant: str, plan: Plain, phase: str) -> State[Plain]:
    """Run one phase; its outcome is in the journal before the task ends."""
    key = qualified(tenant, phase.replace("_", "-"))
    with ProgressBoard(key, f"restore {tenant}, {phase.replace('_', ' ')}") as board:
        result = connect(tenant).run_phase(
            RestorePlan.from_plain(plan), Phase[phase.upper()], board.listen
        )
    return Completed(message=phase_line(result), data=result.to_plain())


@task(
    name="close the restore",
    task_run_name="close the restore of {tenant}",
    timeout_seconds=10 * MINUTE_S,
    **POLICY,
)
def close_restore(tenant: str, plan: Plain) -> Plain:
    """The report of the whole restore, from its journal."""
    return connect(tenant).finish_restore(RestorePlan.from_plain(plan)).to_plain()


@task(
    name="roll back the restore",
    task_run_name="roll back restore {restore} of {tenant}",
    timeout_seconds=6 * HOUR_S,
    **POLICY,
)
def roll_back_restore(tenant: str, restore: str, because: str | None) -> None:
    """Put every target back as it was before the restore; may be run again after a crash."""
    client = connect(tenant)
    _announce(tenant, restore)
    client.roll_back_restore(client.resume_restore(restore), because=because)


def _announce(tenant: str, restore: str) -> None:
    tag_run(f"tenant:{tenant}", "restore")
    note_facts(tenant, restore=restore)
