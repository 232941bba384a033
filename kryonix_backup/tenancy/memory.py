"""
A tenant's memory on this machine, dealt out in shares to what it runs at once.

A share is the lock on one of a few files, so that all processes of a tenant share its memory and
the kernel takes back that of one that is killed. What a share allows decides how many packs or
segments of a log are under way at once: those are what a backup, a restore or a verification needs
most memory for.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kryonix_backup.errors import ConfigError
from kryonix_backup.limits import LEAST_MEMORY_BYTES
from kryonix_backup.model import MIB

log = logging.getLogger(__name__)

# The greatest thing under way is a segment of a log, of 64 MiB sealed and opened; packs are smaller
# (benchmarks/limits.py measures them). One is enough to work; what each more adds is twice 64 MiB.
_ONE_PACK_BYTES = LEAST_MEMORY_BYTES
_MORE_BYTES = 128 * MIB
_MOST_PACKS = 3


def packs_at_once(memory_bytes: int) -> int:
    """How many packs may be under way in one operation of a tenant with so much memory. Pure."""
    return min(1 + (memory_bytes - _ONE_PACK_BYTES) // _MORE_BYTES, _MOST_PACKS)


def shares_of(memory_bytes: int) -> int:
    """How many operations such a tenant may run at once on one machine. Pure."""
    packs = packs_at_once(memory_bytes)
    return max(1, memory_bytes // (_ONE_PACK_BYTES + (packs - 1) * _MORE_BYTES))


@contextmanager
def share_of_memory(folder: Path, memory_bytes: int) -> Iterator[None]:
    """
    Hold one of the tenant's shares; waits where all are taken, and gives it back at the end.

    Raises ConfigError where the folder cannot be used.
    """
    paths = [folder / f"memory-{number}" for number in range(shares_of(memory_bytes))]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = _any_of(paths)
    except OSError as error:
        raise ConfigError(
            f"the memory limit in {folder} cannot be kept: {error.strerror}",
            "Set KRYONIX_HOME to a directory on a local disk that this user may write to.",
        ) from error
    try:
        yield
    finally:
        # A program that another thread starts just now has the file open too, for a while.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _any_of(paths: list[Path]) -> int:
    for path in paths:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    log.info("all %d shares of the tenant's memory are taken; waiting", len(paths))
    # One queue is chosen and stayed in: the kernel wakes its first, and nobody looks again.
    descriptor = _opened(paths[threading.get_native_id() % len(paths)])
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
