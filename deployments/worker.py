"""
A process worker of one pool: ``python -m deployments.worker POOL``.

Loads what it needs while the server is still starting, then waits for its pool to exist.
"""

from __future__ import annotations

import asyncio
import os
import sys

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_WORKER_HEARTBEAT_SECONDS
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessWorker

from deployments.environment import load_schedules
from kryonix_backup.dumps import forbid_dumps

PATIENCE_S = 120.0
_POLL_S = 0.25


async def pool_exists(pool: str) -> None:
    """
    Return once the server knows the pool.

    A worker that comes first would make a pool of its own, without our queues. Raises
    TimeoutError.
    """
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with get_client() as client:
                    await client.read_work_pool(pool)
                return
            except (httpx.TransportError, httpx.HTTPStatusError, RuntimeError, ObjectNotFound):
                await asyncio.sleep(_POLL_S)


async def work(pool: str) -> None:
    """Run what comes to the pool until the process is told to end."""
    await pool_exists(pool)
    worker = ProcessWorker(
        work_pool_name=pool,
        name=f"{pool}-{os.getpid()}",
        heartbeat_interval_seconds=int(PREFECT_WORKER_HEARTBEAT_SECONDS.value()),
        create_pool_if_not_found=False,
    )
    await worker.start()


if __name__ == "__main__":
    forbid_dumps()
    os.chdir(os.environ["PREFECT_HOME"])
    load_schedules()
    setup_signal_handlers_worker(os.getpid(), "the process worker", lambda text: None)
    asyncio.run(work(sys.argv[1]))
