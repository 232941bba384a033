"""What every task has in common: when and how often it is tried again, and no cached answer."""

from __future__ import annotations

from typing import Any, TypedDict

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from kryonix_backup.errors import TransientError

BACKUPS_LIMIT = "kryonix-backups"
HOUR_S = 3600.0
MINUTE_S = 60.0


def tenant_limit(tenant: str) -> str:
    """The name of the limit on a tenant's backups at once."""
    return f"kryonix-backups-{tenant}"


class Policy(TypedDict, total=False):
    """Arguments of the ``task`` decorator that `POLICY` sets."""

    retries: int
    retry_delay_seconds: Any
    retry_jitter_factor: float
    retry_condition_fn: Any
    cache_policy: Any
    persist_result: bool
    result_serializer: str


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether the failure may pass by itself: only the engine's TransientErrors do."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


# The engine's store tries single requests again for some seconds; these wait for an outage to
# pass: 10, 20 and 40 s, each up to half as long again, so that many tenants do not come at once.
POLICY = Policy(
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=10),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
    persist_result=False,
)
