"""The memory of a process that holds keys is its own: no core dump, and nobody looks into it."""

from __future__ import annotations

import ctypes
import os
import resource

from kryonix_backup.errors import ConfigError

_PR_SET_DUMPABLE = 4  # of prctl(2)


def forbid_dumps() -> None:
    """
    Let no core dump of this process be written, nor another process of its user look into it.

    A limit of 0 keeps a core out of a file, and what is started inherits it. It does not stop a
    core that goes to a program (a ``core_pattern`` with a pipe): that a process that is not
    dumpable has none does, and only root can attach to it or read its environment under ``/proc``.
    Another program that is started is dumpable again. Raises ConfigError.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except OSError as error:
        raise ConfigError(
            f"core dumps, which would hold keys, cannot be switched off: {error.strerror}",
            "Let the system allow setrlimit and prctl(PR_SET_DUMPABLE) to this process.",
        ) from error
