"""What the state of a failed run tells: also what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kryonix_backup.errors import KryonixError

_NEXT = ". Next: "


@contextmanager
def telling_what_next() -> Iterator[None]:
    """
    An error's hint stands behind its message, which is all that the state of a run keeps.

    Not a decorator: Prefect finds the types of a flow's parameters in its function's own module.
    """
    try:
        yield
    except KryonixError as error:
        if _NEXT not in error.message:  # a flow inside of this one may have told it
            error.args = (f"{error.message}{_NEXT}{error.next_step}", *error.args[1:])
        raise
