"""Whatever a command is given as stdin, stdout and stderr, it works, and loses nothing unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kryonix_backup.cli.streams import forget_stdout, make_streams_whole, telling

CODE = """
import os, sys
from kryonix_backup.cli.streams import make_streams_whole, telling
from kryonix_backup.errors import KryonixError
make_streams_whole()
"""
SMALL = 65536  # what a pipe holds


def _python(
    code: str, stdout: int, before: Callable[[], None] | None = None, unbuffered: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE + code], stdout=stdout, stderr=subprocess.PIPE, text=True,
        preexec_fn=before, env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, check=False,
    )  # fmt: skip


@pytest.fixture
def full() -> Iterator[int]:
    """A stdout that takes nothing."""
    with Path("/dev/full").open("w") as stream:
        yield stream.fileno()


def _close_all() -> None:
    for number in range(3):
        os.close(number)


def test_closed_streams_lead_nowhere_and_no_file_gets_their_number(tmp_path: Path) -> None:
    told = tmp_path / "told"
    done = _python(
        "sys.stdout.write('a'); sys.stderr.write('b'); sys.stdout.flush()\n"
        f"with open({str(told)!r}, 'w') as file: file.write(str(file.fileno() > 2))",
        subprocess.DEVNULL,
        _close_all,
    )

    assert done.returncode == 0
    assert told.read_text() == "True"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_in_the_middle_is_noticed(unbuffered: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", f"{CODE}sys.stdout.buffer.write(b'x' * {3 * SMALL})"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()

    assert process.wait(20) != 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_stdout_does_not_take_is_told_once(full: int, unbuffered: str) -> None:
    done = _python(
        "try:\n"
        "    with telling():\n"
        "        sys.stdout.write('a'); sys.stdout.flush()\n"
        "except KryonixError as error: sys.exit(error.message)",
        full,
        unbuffered=unbuffered,
    )

    assert done.returncode == 1
    assert done.stderr == "stdout does not take the answer: No space left on device\n"


def test_streams_that_are_whole_stay(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    make_streams_whole()

    assert sys.stdout is before
    with telling():
        sys.stdout.write("told\n")
    assert capsys.readouterr().out == "told\n"


def test_a_forgotten_stdout_fails_no_more(full: int) -> None:
    assert forget_stdout.__doc__
    done = _python(
        "from kryonix_backup.cli.streams import forget_stdout\n"
        "sys.stdout.write('a'); forget_stdout()",
        full,
    )

    assert (done.returncode, done.stderr) == (0, "")
