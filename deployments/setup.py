"""What a server needs before the first tenant: pools, a limit, block types, system deployments."""

from __future__ import annotations

import os

from prefect.client.orchestration import SyncPrefectClient

from deployments.local import PATIENCE_S, LocalServer
from deployments.pools import ensure_limit, ensure_pools
from deployments.specification import apply
from deployments.system import system_deployments
from deployments.tenants import register_blocks, show_logo_of
from kryonix_backup.clock import Clock
from kryonix_backup.errors import ServerUnreachable
from kryonix_backup.sdk.limits import load_tiers

_POLL_S = 0.25


def set_up(client: SyncPrefectClient, url: str) -> None:
    """Make what is missing and bring the rest up to date; may be run again."""
    tiers = load_tiers(os.environ)
    ensure_pools(client, tiers.names)
    ensure_limit(client)
    show_logo_of(url, os.environ)
    register_blocks()
    for spec in system_deployments(tiers):
        apply(client, spec)


def wait_for_workers(client: SyncPrefectClient, local: LocalServer, clock: Clock) -> None:
    """Return once every worker has said that it is there; raises ServerUnreachable."""
    end = clock.monotonic() + PATIENCE_S
    for worker in local.workers:
        while not _is_online(client, worker.name, worker.pid):
            if not worker.alive() or clock.monotonic() > end:
                raise ServerUnreachable(
                    f"the worker of pool {worker.name} did not start:\n{worker.last_lines()}",
                    f"See {worker.log}; then run 'kryonix up' again.",
                )
            clock.sleep(_POLL_S)


def _is_online(client: SyncPrefectClient, pool: str, pid: int) -> bool:
    return any(worker.name == f"{pool}-{pid}" for worker in client.read_workers_for_work_pool(pool))
