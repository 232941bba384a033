"""
Run the ``kryonix`` command and say on stderr, as JSON, how long the steps of a restore took.

    .venv/bin/python benchmarks/postgres_steps.py restore bench --at MOMENT --to db=URL

Used by ``postgres_log.py``. Rows are loaded while the log is folded, so steps overlap; the numbers
are the start and the end of each in seconds, and the sum of the pieces where a step has several.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from kryonix_backup.cli.main import main
from kryonix_backup.sources.postgres.restoring import applying, archive, replay, target

_BEGAN = time.monotonic()
STEPS: dict[str, list[float]] = {}


def note(name: str, begun: float) -> None:
    """Take a piece of a step into account: when the first began, the last ended, all took."""
    ended = time.monotonic()
    first, _, took = STEPS.get(name, [begun - _BEGAN, 0.0, 0.0])
    STEPS[name] = [round(first, 2), round(ended - _BEGAN, 2), round(took + ended - begun, 2)]


def timed(where: Any, name: str, label: str) -> None:
    """Replace a function by one that is timed."""
    inner: Callable[..., Any] = getattr(where, name)

    @functools.wraps(inner)
    def outer(*words: Any, **named: Any) -> Any:
        begun = time.monotonic()
        try:
            return inner(*words, **named)
        finally:
            note(f"{label} {words[2]}" if name == "make" else label, begun)

    setattr(where, name, outer)


def run() -> None:
    """Time the steps of the target, and run the command as it is."""
    timed(target, "make_database", "database made")
    timed(archive.Archive, "make", "schema")
    timed(target, "load_rows", "rows loaded")
    timed(target, "replay", "log read, folded and applied")
    timed(replay._Replay, "_take_all", "- of it, read and folded")
    timed(applying, "apply_all", "- of it, applied")
    timed(target, "set_sequences", "sequences")
    timed(target.PostgresTarget, "load", "all of it")
    timed(target.PostgresTarget, "commit", "switched")
    try:
        main()
    finally:
        print(json.dumps(STEPS), file=sys.stderr)


if __name__ == "__main__":
    run()
