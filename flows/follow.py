"""The following of transaction logs: one long-lived run for all tenants of a pool."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.hooks import follow_again
from flows.parameters import Pool
from flows.telling import telling_what_next
from kryonix_backup.sdk.following import SEGMENT_EVERY_S
from tasks.follow import follow_pool


@flow(
    name="follow-logs",
    flow_run_name="follow {pool}",
    description="Keep the transaction logs of all tenants of a pool, continuously.",
    on_crashed=[follow_again],
)
def follow_logs(
    pool: Pool,
    every_s: Annotated[
        float,
        Field(ge=1, le=75),
    ] = SEGMENT_EVERY_S,
) -> State[str]:
    """
    Keep the transaction logs of all tenants of a pool, until a successor does.

    Ends at once where another run follows them already.

    Args:
        pool: The pool whose tenants' logs are kept; each tier has one of its name.
        every_s: Seconds after which what was committed is kept at the latest.
    """
    with telling_what_next():
        line = follow_pool(pool, every_s)
        return Completed(message=line, data=line)
