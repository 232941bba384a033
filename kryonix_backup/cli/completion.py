"""`kryonix completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kryonix_backup.cli.answer import Answer, answers


@click.command(
    epilog="Example: kryonix completion bash > ~/.local/share/bash-completion/completions/kryonix;"
    " or, for this shell alone: source <(kryonix completion bash)"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@answers
def completion(shell: str) -> Answer:
    """
    Print the script that completes commands, options and tenants in a shell.

    'kryonix' has to be in PATH. zsh reads it as _kryonix from a directory of its fpath, fish as
    kryonix.fish from ~/.config/fish/completions.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # the choice names only shells that click knows
    root = click.get_current_context().find_root().command
    script = kind(root, {}, "kryonix", "_KRYONIX_COMPLETE").source()
    return Answer({"shell": shell, "script": script}, [script])
