"""Every failure leaves as a code, a sentence and a next step; and nothing is imported in vain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kryonix_backup.cli import main as command
from kryonix_backup.cli.main import COMMANDS
from kryonix_backup.cli.main import kryonix as root
from tests.cli.conftest import Terminal

HOSTILE = ["../x", "x" * 300, "", "ünïcödé", "a'; drop table sessions; --", "ACME", "acme\n"]
HEAVY = {"sqlalchemy", "alembic", "rich", "boto3", "botocore", "prefect", "yaml", "pydantic"}


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kryonix_backup.cli.main", *words],
        env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def imported_by(*words: str) -> tuple[int, set[str]]:
    """The exit code and the packages that a command imported, said by a process of its own."""
    script = (
        "import sys; from kryonix_backup.cli.main import main; code = main(sys.argv[1:]);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr);"
        "sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
    )
    return ended.returncode, set(ended.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_table_says(name: str) -> None:
    context = click.Context(root)
    found = root.get_command(context, name)

    assert isinstance(found, click.Command)
    assert COMMANDS[name][1].endswith(".")


def test_help_imports_no_command() -> None:
    code, modules = imported_by("--help")

    assert code == 0
    assert not modules & (HEAVY | {"deployments", "msgpack", "cryptography", "logging.config"})


@pytest.mark.parametrize("words", [("backup", "acme"), ("verify", "acme"), ("ls", "acme")])
def test_a_command_imports_nothing_that_it_does_not_use(
    backed_up: Terminal, words: tuple[str, ...]
) -> None:
    code, modules = imported_by(*words)

    assert code == 0
    assert not modules & (HEAVY - {"yaml"})  # the tiers are in YAML


def test_a_restore_imports_nothing_that_it_does_not_use(backed_up: Terminal) -> None:
    code, modules = imported_by("restore", "acme", "--to", f"files={backed_up.source('out')}")

    assert code == 0
    assert not modules & (HEAVY - {"yaml"})  # the tiers are in YAML


def test_help_names_every_command(kryonix: Terminal) -> None:
    said = kryonix("--help")

    assert said.code == 0
    assert all(f"\n  {name} " in said.out for name in COMMANDS)


def test_a_group_alone_shows_its_help_as_it_is(kryonix: Terminal) -> None:
    said = kryonix("tenant")

    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Usage: kryonix tenant ")
    assert "\n  isolate " in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("bakup",), "Did you mean 'backup'?"),
        (("tenant", "ad"), "Did you mean 'add'?"),
        (("keys", "acme", "shwo"), "Did you mean 'show'?"),
        (("backup", "acme", "--sorce", "x"), "'--source'?"),
        (("restore", "acme", "--reason", "x"), "kryonix --reason TEXT restore"),
        (("keys", "acme", "show", "--reason", "x"), "kryonix --reason TEXT keys"),
        (("keys", "show"), "Run 'kryonix keys ID show'."),
        (("keys", "rotate", "acme"), "the tenant's id stands before 'rotate'"),
        (("audit", "acme"), "Run 'kryonix audit acme verify', 'show' or 'accept'."),
        (("audit", "acme", "vrify"), "Did you mean 'verify'?"),
    ],
)
def test_a_typing_error_is_told_with_what_was_meant(
    kryonix: Terminal, words: tuple[str, ...], told: str
) -> None:
    said = kryonix(*words)

    assert said.code == 2
    assert told in said.err


def test_the_version_is_told(kryonix: Terminal) -> None:
    assert kryonix("--version").out.startswith("kryonix 0.")


def test_an_error_is_a_sentence_and_a_next_step(kryonix: Terminal) -> None:
    said = kryonix("backup", "acme")

    assert said.code == 12
    assert said.out == ""
    assert said.err.startswith("error: tenant acme is not registered here\n  next: See 'kryonix ")


def test_with_json_an_error_is_one_object(kryonix: Terminal) -> None:
    kryonix.add()
    said = kryonix("ls", "acme", "0", "--json")

    assert said.code == 56
    assert said.json["error"]["type"] == "SnapshotUnknown"
    assert said.json["error"]["tenant"] == "acme"
    assert said.json["error"]["exit_code"] == 56
    assert said.json["error"]["hint"] == "See 'kryonix snapshots acme'."
    assert set(said.json["error"]) == {"type", "message", "hint", "tenant", "exit_code"}
    assert said.err.startswith("error: tenant acme: ")


@pytest.mark.parametrize(
    "words", [(), ("nonsense",), ("backup",), ("backup", "acme", "--kind", "half"), ("--nope",)]
)
def test_a_wrong_request_exits_2(kryonix: Terminal, words: tuple[str, ...]) -> None:
    said = kryonix(*words, "--json") if words else kryonix("ls", "--json")

    assert said.code == 2
    assert said.json["error"]["type"] == "UsageError"
    assert "--help" in said.json["error"]["hint"]


@pytest.mark.parametrize("tenant", HOSTILE)
@pytest.mark.parametrize(
    "words",
    [
        ("tenant", "add", "{}", "--region", "primary=file:///nowhere/at/all"),
        ("tenant", "show", "{}"),
        ("tenant", "remove", "{}"),
        ("backup", "{}"),
        ("snapshots", "{}", "--region", "primary=file:///nowhere/at/all"),
        ("restore", "{}"),
        ("verify", "{}"),
        ("catalog", "history", "{}"),
        ("catalog", "rebuild", "{}"),
    ],
)
def test_a_hostile_tenant_leaves_nothing_behind(
    kryonix: Terminal, kryonix_home: Path, words: tuple[str, ...], tenant: str
) -> None:
    said = kryonix(*(word.replace("{}", tenant) for word in words))

    assert said.code == 11
    assert "is not a valid name" in said.err
    assert list(kryonix_home.iterdir()) == []


def test_a_wrong_passphrase_exits_54(kryonix: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KRYONIX_KEY_FILE")
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "right")
    assert kryonix.add().code == 0
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "wrong")

    said = kryonix("snapshots", "acme", "--json")

    assert (said.code, said.json["error"]["type"]) == (54, "KeyRefused")
    assert "wrong" not in said.err.replace("wrong passphrase", "")


def test_no_passphrase_exits_15(kryonix: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KRYONIX_KEY_FILE")

    assert kryonix.add().code == 15
    assert kryonix("tenant", "list", "--json").json == {"tenants": []}


def test_a_fault_of_ours_is_one_line_and_with_verbose_a_traceback(
    kryonix: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "backup", ("tests.cli.broken:broken", "Broken."))

    short, long = kryonix("backup"), kryonix("backup", "--verbose")

    assert (short.code, long.code) == (1, 1)
    assert short.err.startswith("error: unexpected ZeroDivisionError: ")
    assert "Traceback" not in short.err
    assert "Traceback" in long.err


def test_ctrl_c_exits_130(kryonix: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "backup", ("tests.cli.broken:stopped", "Stopped."))

    said = kryonix("backup", "--json")

    assert (said.code, said.json["error"]["type"]) == (130, "Interrupted")


def test_a_signal_in_the_middle_exits_130(kryonix: Terminal) -> None:
    kryonix.add()
    script = """
import os, signal, sys
from kryonix_backup.backup.pipeline import Pipeline
from kryonix_backup.cli import main

run = Pipeline.run

def interrupted(self, dump):
    os.kill(os.getpid(), signal.SIGINT)
    return run(self, dump)

Pipeline.run = interrupted
sys.exit(main.main(["backup", "acme"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )

    assert ended.returncode == 130
    assert "stopped by the operator" in ended.stderr
    assert kryonix("snapshots", "acme", "--json").json["snapshots"] == []
    assert kryonix("verify", "acme").code == 0


def test_a_signal_that_python_had_to_drop_comes_again(
    kryonix: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "backup", ("tests.cli.broken:dropping", "Dropping."))
    hook = sys.unraisablehook

    assert kryonix("backup").code == 130
    assert sys.unraisablehook is hook


def test_a_closed_pipe_is_quiet(backed_up: Terminal, tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / "files" / f"file-with-a-long-name-{number:060}").touch()
    assert backed_up("backup", "acme").code == 0
    command = [sys.executable, "-m", "kryonix_backup.cli.main", "ls", "acme"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()

    assert err == b""
    assert process.returncode == 141


def test_the_command_is_a_program_of_its_own(kryonix: Terminal) -> None:
    ended = run("tenant", "list", "--json")

    assert (ended.returncode, json.loads(ended.stdout)) == (0, {"tenants": []})
    assert run("nonsense").returncode == 2


def test_shells_complete_commands_and_tenants(kryonix: Terminal) -> None:
    kryonix.add()

    def complete(words: str, at: int) -> list[str]:
        ended = run(_KRYONIX_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(at))
        return ended.stdout.split()

    assert complete("kryonix res", 1) == ["plain,restore"]
    assert complete("kryonix backup a", 2) == ["plain,acme"]
    assert complete("kryonix audit acme ", 3) == ["plain,accept", "plain,show", "plain,verify"]
    assert complete("kryonix keys acme mo", 3) == ["plain,move"]


def test_at_its_end_a_command_looks_for_no_garbage() -> None:
    program = (
        "import atexit, gc, sys\n"
        "from kryonix_backup.cli.main import main\n"
        "main(['--version'])\n"
        "atexit._run_exitfuncs()\n"
        "sys.exit(gc.get_freeze_count() == 0)\n"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_main_is_what_the_entry_point_names() -> None:
    assert command.main is not None
