"""Commands that fail in ways that no command should."""

from __future__ import annotations

import signal
import time

import click

from kryonix_backup.cli.answer import Answer, answers


@click.command()
@answers
def broken() -> Answer:
    """Divide by zero."""
    return Answer({"never": 1 // 0}, [])


@click.command()
@answers
def stopped() -> Answer:
    """Be stopped by Ctrl-C."""
    raise KeyboardInterrupt


class _Clearing:
    """Gets Ctrl-C where nothing can be raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@click.command()
@answers
def dropping() -> Answer:
    """Be stopped by Ctrl-C while an object is being cleared away."""
    _Clearing()
    time.sleep(30)
    return Answer({"never": 1}, [])
