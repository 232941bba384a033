"""The work pools, their queues and the limit on all backups together."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from kryonix_backup.model import TenantId
from tasks.policy import BACKUPS_LIMIT, tenant_limit

QUEUES = {"high": 1, "normal": 2, "low": 3}
BACKUPS_AT_ONCE = 50


def ensure_pools(client: SyncPrefectClient, pools: Sequence[str]) -> None:
    """Make each tier's process pool with its queues, where they are missing."""
    template = ProcessWorker.get_default_base_job_template()
    for pool in pools:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(
                WorkPoolCreate(name=pool, type="process", base_job_template=template)
            )
        there = {queue.name for queue in client.read_work_queues(work_pool_name=pool)}
        for queue in [name for name in QUEUES if name not in there]:
            with suppress(ObjectAlreadyExists):  # a request that was tried again
                client.create_work_queue(queue, priority=QUEUES[queue], work_pool_name=pool)


def run_flows_directly(client: SyncPrefectClient, pools: Sequence[str]) -> None:
    """
    Let the local server's workers start a flow by this very Python.

    By default a worker starts a second Python that looks for code to copy first; our flows are
    installed, and a run begins some three CPU seconds sooner without it.
    """
    command = shlex.join([sys.executable, "-P", "-m", "deployments.engine"])
    for pool in pools:
        template = client.read_work_pool(pool).base_job_template
        setting = template["variables"]["properties"]["command"]
        if setting.get("default") != command:
            setting["default"] = command
            client.update_work_pool(pool, WorkPoolUpdate(base_job_template=template))


def ensure_limit(client: SyncPrefectClient) -> None:
    """Make the limit on all backups together; one that is there keeps the operator's number."""
    try:
        client.read_global_concurrency_limit_by_name(BACKUPS_LIMIT)
    except ObjectNotFound:
        with suppress(ObjectAlreadyExists):
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=BACKUPS_LIMIT, limit=BACKUPS_AT_ONCE)
            )


def keep_tenant_limit(client: SyncPrefectClient, tenant: TenantId, workers: int) -> None:
    """Make the limit on one tenant's backups at once, or bring it to what its tier says."""
    client.upsert_global_concurrency_limit_by_name(tenant_limit(tenant), workers)
