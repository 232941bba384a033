"""
One tenant's bandwidth on this machine, shared by all of its threads and processes.

A small file says until when the bytes that went through are paid for at the tenant's rate. Who
wants to move more waits for that moment, holding the file's lock: the kernel queues the others
behind it, without any of them looking again and again, and frees the lock of a process that is
killed. Nothing is taken before its turn comes, so a killed process leaves nothing taken behind.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from kryonix_backup.clock import Clock
from kryonix_backup.errors import ConfigError

SLACK_S = 0.05
"""Who woke up late by less than this catches up: sleeping longer than asked would cost its rate."""

_MOST_DEBT_S = 900.0  # more than the greatest object takes at the lowest rate: the file is wrong
_STATE = struct.Struct("<16sd")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Bandwidth:
    """
    A token bucket that holds a debt instead of tokens.

    In any stretch of t seconds at most rate × (t + SLACK_S) bytes and one object more are begun.
    """

    def __init__(self, path: Path, bits_s: int, clock: Clock) -> None:
        self._path = path
        self._bytes_s = bits_s / 8
        self._clock = clock

    def now(self) -> float:
        """The moment from which bytes that are moved next are to be counted."""
        return self._clock.monotonic()

    def take(self, count: int, since: float | None = None) -> float:
        """
        Count these bytes in, once all before them are paid for; when they are paid for themselves.

        ``since`` is when they began to move, if they have moved already. Raises ConfigError where
        the file cannot be used.
        """
        with self._turn() as descriptor:
            paid = self._read(descriptor)
            self.wait(paid)
            begun = self.now() if since is None else since
            until = max(paid, begun - SLACK_S) + count / self._bytes_s
            os.pwrite(descriptor, _STATE.pack(_boot(), until), 0)
        return until

    def wait(self, until: float) -> None:
        """Return when that moment has come."""
        while (rest := until - self.now()) > 0:
            self._clock.sleep(rest)

    @contextmanager
    def _turn(self) -> Iterator[int]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            # Opened anew each time: threads of one process then queue as processes do.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            # A program that another thread starts just now has the file open too, for a while.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _read(self, descriptor: int) -> float:
        """Until when all is paid for; what another boot, or nobody whole, wrote says nothing."""
        state = os.pread(descriptor, _STATE.size, 0)
        if len(state) < _STATE.size:
            return -math.inf
        boot, paid = _STATE.unpack(state)
        if boot != _boot() or not paid < self.now() + _MOST_DEBT_S:
            return -math.inf
        return float(paid)

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"the bandwidth limit {self._path} cannot be kept: {error.strerror}",
            "Set KRYONIX_HOME to a directory on a local disk that this user may write to.",
        )


@cache
def _boot() -> bytes:
    """Which boot of which machine this is: its monotonic clock is no other's."""
    try:
        return uuid.UUID(_BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)
