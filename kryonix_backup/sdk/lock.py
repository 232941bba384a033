"""Locks that die with their process, whatever ends it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kryonix_backup.errors import AlreadyRunning, ConfigError
from kryonix_backup.model import RestoreId, TenantId


@contextmanager
def restore_lock(home: Path, restore: RestoreId) -> Iterator[None]:
    """
    Be the only process of this machine that works on a restore; raises AlreadyRunning.

    Processes on other machines are told apart by the restore's journal, where each step can be
    written once.
    """
    with _held(home, restore, f"another process works on restore {restore}"):
        yield


@contextmanager
def onboarding_lock(home: Path, tenant: TenantId) -> Iterator[None]:
    """
    Be the only process of this machine that takes a tenant on; raises AlreadyRunning.

    One that failed would take back what the other one has made.
    """
    with _held(home, f"onboarding-{tenant}", f"another process takes on tenant {tenant}"):
        yield


@contextmanager
def _held(home: Path, name: str, busy: str) -> Iterator[None]:
    folder = home / "locks"
    path = folder / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the lock {path} cannot be made: {error.strerror}",
            "Set KRYONIX_HOME to a directory that this user may write.",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AlreadyRunning(busy) from error
    try:
        yield  # the file stays: taking it away would let two processes hold two files of one name
    finally:
        # A program that another thread starts at this moment has the file open too, for a while.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
