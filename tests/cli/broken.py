"""Commands that fail in ways that no command should."""

from __future__ import annotations

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
