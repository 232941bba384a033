"""docs/command.md is the contract: it names every command, option and exit code, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from kryonix_backup.cli.main import kryonix as root
from kryonix_backup.errors import KryonixError
from tests.architecture.tree import modules

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "command.md").read_text()
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
# Of a run's own, and a part of longer names.
NOT_SET_BY_PEOPLE = {"KRYONIX_RUN", "KRYONIX_COMPLETE", "KRYONIX_NEW"}
OF_EVERY_COMMAND = {"--json", "--verbose", "-v", "--help", "-h"}


def _commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def _sections() -> dict[str, str]:
    commands = PAGE.partition("## Commands")[2].partition("## Exit codes")[0]
    parts = re.split(r"^### (.+)$", commands, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _errors(error: type[KryonixError]) -> Iterator[type[KryonixError]]:
    if error.__module__ == "kryonix_backup.errors":
        yield error
        for child in error.__subclasses__():
            yield from _errors(child)


COMMANDS = dict(_commands(root, "kryonix"))


def test_every_command_has_its_section() -> None:
    assert set(_sections()) == set(COMMANDS)


def test_every_option_is_named_and_no_other() -> None:
    for name, section in _sections().items():
        there = {
            word
            for param in COMMANDS[name].params
            if isinstance(param, click.Option)
            for word in (*param.opts, *param.secondary_opts)
        } - OF_EVERY_COMMAND
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", section)) - OF_EVERY_COMMAND
        assert named == there, name


def test_every_command_takes_json_and_verbose() -> None:
    for name, command in COMMANDS.items():
        words = {word for param in command.params for word in param.opts}
        assert {"--json", "--verbose"} <= words, name


def test_every_command_has_an_example() -> None:
    for name, command in COMMANDS.items():
        # The tenant's id comes before the word of the group's command.
        example = re.sub(r" (audit|keys) acme ", r" \1 ", command.epilog or "")
        assert example.startswith(f"Example: {name}"), name


def test_the_exit_codes_are_those_of_the_errors() -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", PAGE, re.M)

    assert listed == sorted(
        ((str(error.exit_code), error.__name__, error.__doc__) for error in _errors(KryonixError)),
        key=lambda row: int(row[0]),
    )


def test_the_runbook_says_what_to_do_at_every_exit_code() -> None:
    cells = re.findall(r"^\| ([\d, to]+) \| .+ \|$", RUNBOOK.partition("## By exit code")[2], re.M)
    told: list[int] = []
    for cell in cells:
        first, to, last = cell.partition(" to ")
        told += range(int(first), int(last) + 1) if to else map(int, cell.split(", "))

    assert sorted(told) == sorted({3} | {error.exit_code for error in _errors(KryonixError)})


def test_every_variable_is_named() -> None:
    named = set(re.findall(r"\bKRYONIX_[A-Z_]*[A-Z]\b", PAGE))
    read = {
        name
        for module in modules("kryonix_backup", "deployments", "blocks", "tasks", "flows")
        for name in re.findall(r"\bKRYONIX_[A-Z_]*[A-Z]\b", module.text)
    }

    assert read - NOT_SET_BY_PEOPLE <= named
