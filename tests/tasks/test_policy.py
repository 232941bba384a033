from __future__ import annotations

import ast
import inspect
import textwrap

import pytest
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed

import tasks.backup
import tasks.onboard
import tasks.report
import tasks.restore
from kryonix_backup.errors import KeyRefused, StoreUnavailable
from tasks.policy import is_transient

MODULES = (tasks.backup, tasks.onboard, tasks.report, tasks.restore)
TASKS = [each for module in MODULES for each in vars(module).values() if isinstance(each, Task)]
BODY_LINES = 15


@task
def nothing() -> None:
    """A task to ask about."""


@pytest.mark.parametrize(
    ("error", "again"),
    [(StoreUnavailable("gone"), True), (KeyRefused("wrong"), False), (OSError("disk"), False)],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    state: State[None] = Failed(data=error)

    assert is_transient(nothing, TaskRun.model_construct(), state) is again


@pytest.mark.parametrize("each", TASKS, ids=lambda each: each.fn.__name__)
def test_a_task_has_a_policy(each: Task[..., object]) -> None:
    assert each.retries == 3
    assert each.retry_condition_fn is is_transient
    assert each.timeout_seconds or each is tasks.backup.back_up_source
    assert "{tenant}" in str(each.task_run_name)
    assert each.cache_policy is NO_CACHE or each is tasks.restore.run_phase


@pytest.mark.parametrize("each", TASKS, ids=lambda each: each.fn.__name__)
def test_a_tasks_body_is_short(each: Task[..., object]) -> None:
    function = ast.parse(textwrap.dedent(inspect.getsource(each.fn))).body[0]
    assert isinstance(function, ast.FunctionDef)
    body = function.body[1:]

    assert (body[-1].end_lineno or 0) - body[0].lineno < BODY_LINES
