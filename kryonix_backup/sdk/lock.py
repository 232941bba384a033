"""A lock on one restore that dies with its process, whatever ends it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kryonix_backup.errors import AlreadyRunning, ConfigError
from kryonix_backup.model import RestoreId


@contextmanager
def restore_lock(home: Path, restore: RestoreId) -> Iterator[None]:
    """
    Be the only process of this machine that works on a restore.

    The kernel frees the lock when the process ends. Processes on other machines are told apart by
    the restore's journal, where each step can be written once. Raises AlreadyRunning.
    """
    folder = home / "locks"
    path = folder / restore
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
        raise AlreadyRunning(f"another process works on restore {restore}") from error
    try:
        yield  # the file stays: taking it away would let two processes hold two files of one name
    finally:
        # A program that another thread starts at this moment has the file open too, for a while.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
