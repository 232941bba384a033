"""
Which CPUs of this machine a tenant's work runs on.

The kernel keeps the bound, for every thread and program that the work starts: Python's threads,
compression, the connections of a store, pg_restore.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from kryonix_backup.model import TenantId

log = logging.getLogger(__name__)


@contextmanager
def on_cores(tenant: TenantId, count: int) -> Iterator[None]:
    """
    Run the calling thread, and all that it starts, on so many CPUs.

    They are the same ones in every process of the tenant, which together take no more. Where the
    system forbids it, a warning says so and the work goes on without the bound.
    """
    before = os.sched_getaffinity(0)
    chosen = cores_of(tenant, count, before)
    if chosen == before or not _set(chosen):
        yield
        return
    try:
        yield
    finally:
        _set(before)


def cores_of(tenant: TenantId, count: int, there: Collection[int]) -> set[int]:
    """So many of the CPUs that are there, from one on that the tenant's id decides. Pure."""
    ordered = sorted(there)
    if count >= len(ordered):
        return set(ordered)
    first = int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:8]) % len(ordered)
    return {ordered[(first + number) % len(ordered)] for number in range(count)}


def _set(cores: set[int]) -> bool:
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        log.warning("the limit on CPU cores is not kept: %s", error.strerror)
        return False
    return True
