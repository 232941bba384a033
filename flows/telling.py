"""What the state of a failed run tells: also what to do next."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from kryonix_backup.errors import KryonixError

P = ParamSpec("P")
R = TypeVar("R")

_NEXT = ". Next: "


def telling_what_next(run: Callable[P, R]) -> Callable[P, R]:
    """The flow's function; an error's hint stands behind its message, which is all that is kept."""

    @wraps(run)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return run(*args, **kwargs)
        except KryonixError as error:
            if _NEXT not in error.message:  # a flow inside of this one may have told it
                error.args = (f"{error.message}{_NEXT}{error.next_step}", *error.args[1:])
            raise

    return told
