"""
`kryonix`: which commands there are, and how every failure leaves.

Only click and the errors are imported here: `kryonix --help` answers at once, and a backup
carries nothing that it does not use.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from kryonix_backup import __version__
from kryonix_backup.cli.streams import forget_stdout, make_streams_whole, telling
from kryonix_backup.errors import Interrupted, KryonixError, UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# By section of --help: name, where the command is, and its line. Every command of the project
# stands here.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Backups": {
        "tenant": ("kryonix_backup.cli.tenant:tenant", "Add, list, show and remove tenants."),
        "source": ("kryonix_backup.cli.source:source", "Check and prepare what is backed up."),
        "backup": ("kryonix_backup.cli.backup:backup", "Back up a tenant's sources."),
        "restore": ("kryonix_backup.cli.restore:restore", "Bring a tenant's sources back."),
        "rollback": ("kryonix_backup.cli.restore:rollback", "Undo a restore that stopped."),
        "snapshots": ("kryonix_backup.cli.browse:snapshots", "List a tenant's snapshots."),
        "ls": ("kryonix_backup.cli.browse:ls", "List what a snapshot holds."),
        "cat": ("kryonix_backup.cli.browse:cat", "Print one file of a snapshot."),
        "diff": ("kryonix_backup.cli.browse:diff", "What changed between two snapshots."),
        "verify": ("kryonix_backup.cli.verify:verify", "Prove that snapshots can be read."),
    },
    "Care": {
        "doctor": ("kryonix_backup.cli.doctor:doctor", "Look for what would stop a backup."),
        "keys": ("kryonix_backup.cli.keys:keys", "Show, rotate and escrow a tenant's keys."),
        "audit": ("kryonix_backup.cli.audit:audit", "Who did what, and that nobody changed it."),
        "catalog": ("kryonix_backup.cli.catalog:catalog", "Past runs; rebuild from a repository."),
        "tiers": ("kryonix_backup.cli.tiers:tiers", "List what tiers promise, or check a file."),
        "completion": ("kryonix_backup.cli.completion:completion", "Completion for a shell."),
    },
    "Through Prefect": {
        "up": ("deployments.commands:up", "Start a local Prefect server and its workers."),
        "down": ("deployments.commands:down", "Stop them."),
        "status": ("deployments.commands:status", "Say whether they run."),
        "deploy": ("deployments.commands:deploy", "Write tenants' deployments to Prefect."),
        "flow": ("deployments.commands:flow", "Run a flow through Prefect."),
        "demo": ("deployments.demo:demo", "The whole story on this machine, with a report."),
    },
}  # fmt: skip
COMMANDS = {name: each for section in SECTIONS.values() for name, each in section.items()}

# Looking for cycles after every 700 new objects takes 1.5 % of a backup, and there are hardly any.
_OBJECTS_TO_LOOK_AGAIN = 20_000
_AGAIN_S = 0.02  # by then the clearing away is over


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        fitting = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*fitting, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:  # click looks for what was meant among the imported
            raise click.NoSuchCommand(
                error.command_name, possibilities=COMMANDS, ctx=ctx
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(name.ljust(width), line) for name, (_, line) in commands.items()]
                formatter.write_dl(rows)


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click calls it so
    if wanted and not context.resilient_parsing:
        click.echo(f"kryonix {__version__}")
        context.exit()


@click.group(
    "kryonix",
    cls=LazyGroup,
    epilog="Begin with 'kryonix tenant add --help'. Every command takes --json, --verbose and"
    " --help, and says what to do next where it fails. docs/command.md has all of it,"
    " docs/runbook.md what to do when something is wrong.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version,
    help="Show the version and exit.",
)  # fmt: skip
@click.option("--reason", help="Why, for the tenant's audit chain; else KRYONIX_REASON.")
def kryonix(*, reason: str | None) -> None:
    """Back up, verify and restore the data of many tenants, each in a repository of its own."""
    if reason is not None:
        os.environ["KRYONIX_REASON"] = reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; nothing but an exit code leaves here."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    told: dict[str, bool] = {}
    gc.set_threshold(_OBJECTS_TO_LOOK_AGAIN)
    # Nor are those looked for that end with the process: that takes 0.04 s of every command.
    atexit.register(gc.freeze)
    make_streams_whole()
    try:
        with _ctrl_c_is_heeded():
            code = kryonix.main(words, prog_name="kryonix", standalone_mode=False, obj=told)
        with telling():
            sys.stdout.flush()
    except BrokenPipeError:
        code = _leave_closed_pipe()
    except (click.Abort, KeyboardInterrupt):
        code = _fail(Interrupted("stopped by the operator"), words, told)
    except click.ClickException as error:
        code = _refuse(error, words, told)
    except KryonixError as error:
        code = _fail(error, words, told)
    except Exception as error:  # the last resort: whatever it is leaves as one line
        code = _fail(_unexpected(error), words, told)
    return code if isinstance(code, int) else 0


@contextmanager
def _ctrl_c_is_heeded() -> Iterator[None]:
    """
    Bring Ctrl-C up again where Python had to drop it.

    It drops what is raised while an object is being cleared away, and a backup would go on.
    """
    before = sys.unraisablehook

    def look(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is not KeyboardInterrupt:
            before(dropped)
            return
        import signal  # here and not above: nobody else pays for them
        import threading

        to_main = (threading.main_thread().ident, signal.SIGINT)
        again = threading.Timer(_AGAIN_S, signal.pthread_kill, to_main)
        again.daemon = True
        again.start()

    sys.unraisablehook = look
    try:
        yield
    finally:
        sys.unraisablehook = before


def _refuse(error: click.ClickException, words: Sequence[str], told: Mapping[str, bool]) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the help
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    return _fail(_usage_error(error), words, told)


def _usage_error(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "kryonix"
    message = error.format_message().rstrip(".")
    hint = f"Run '{where} --help' to see what it takes."
    if isinstance(error, click.NoSuchOption) and error.option_name == "--reason":
        hint = (
            f"It stands before the command: kryonix --reason TEXT{where.removeprefix('kryonix')}."
        )
    return UsageError(message[:1].lower() + message[1:], hint)


def _unexpected(error: Exception) -> KryonixError:
    found = KryonixError(
        f"unexpected {type(error).__name__}: {error}",
        "This is a fault of kryonix-backup. Run the command again with --verbose and report what"
        " it says.",
    )
    found.__cause__ = error
    return found


def _fail(error: KryonixError, words: Sequence[str], told: Mapping[str, bool]) -> int:
    """
    Tell the error on stderr, with --json also as an object on stdout; its exit code.

    Not on stdout once a part of the answer is there: two objects would be none.
    """
    options = words[: words.index("--")] if "--" in words else words
    if "--json" in options and not told.get("answering"):
        _print_json_error(error)
    if "--verbose" in options or "-v" in options:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    about = f"tenant {error.tenant}: " if error.tenant else ""
    message = " ".join(error.message.splitlines())
    with suppress(OSError):  # a full stderr takes no more, and the exit code says it still
        click.echo(f"error: {about}{message}\n  next: {error.next_step}", err=True)
    return error.exit_code


def _print_json_error(error: KryonixError) -> None:
    import json

    plain = {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.next_step,
        "tenant": error.tenant,
        "exit_code": error.exit_code,
    }
    try:
        click.echo(json.dumps({"error": plain}))
    except OSError:  # nobody reads it, or it is full: the exit code says it still
        forget_stdout()


def _leave_closed_pipe() -> int:
    """Who read us has gone; say nothing, as programs do that SIGPIPE ends."""
    forget_stdout()
    return 141


if __name__ == "__main__":
    sys.exit(main())
