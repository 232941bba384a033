"""One line on a terminal that says how far a run has come; nothing in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kryonix_backup.cli.text import duration, size
from kryonix_backup.events import Listener, Progress, quiet

_WIDE = 120


@contextmanager
def shown_progress() -> Iterator[Listener]:
    """A listener that draws on stderr where that is a terminal, and is silent elsewhere."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield quiet
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    stage, told = TextColumn("{task.fields[stage]}"), TextColumn("{task.description}")
    # The words before the bar: a narrow terminal has no room for both.
    columns = (stage, BarColumn(), told) if console.width >= _WIDE else (stage, told)
    with Bar(*columns, console=console, transient=True, refresh_per_second=5) as bar:
        task = bar.add_task("starting", total=None, stage="")

        def show(progress: Progress) -> None:
            bar.update(
                task,
                stage=progress.stage,
                description=describe(progress),
                completed=progress.bytes_done,
                total=progress.bytes_total or None,
            )

        yield show


def describe(progress: Progress) -> str:
    """What was done so far, how fast, and what is left."""
    done = size(progress.bytes_done)
    if progress.bytes_total:
        done += f" of {size(progress.bytes_total)}"
    parts = [done]
    if progress.entries_done:
        parts.append(f"{progress.entries_done:,} entries")
    parts.append(f"{size(progress.bytes_per_s)}/s")
    if progress.left_s is not None:
        parts.append(f"{duration(progress.left_s)} left")
    return ", ".join(parts)
