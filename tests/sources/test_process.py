from __future__ import annotations

import os
import time

import pytest

from kryonix_backup.errors import SourceError
from kryonix_backup.sources.process import Program


def test_what_a_program_writes_is_read_to_its_end() -> None:
    with Program(["/bin/sh", "-c", "echo one; echo two"], env={}, writes=True) as program:
        assert program.read_all() == b"one\ntwo\n"


def test_it_is_read_in_portions() -> None:
    buffer = memoryview(bytearray(2))
    with Program(["/bin/sh", "-c", "printf abc"], env={}, writes=True) as program:
        read = b"".join(
            bytes(buffer[:count]) for count in iter(lambda: program.readinto(buffer), 0)
        )
        program.finish()

    assert read == b"abc"


def test_a_program_that_fails_says_what_it_said() -> None:
    words = ["/bin/sh", "-c", "echo half; echo it broke >&2; exit 3"]
    with (
        Program(words, env={}, writes=True) as program,
        pytest.raises(SourceError, match=r"sh failed \(3\): it broke"),
    ):
        program.read_all()


def test_it_sees_only_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "secret")
    with Program(["/usr/bin/env"], env={"GIVEN": "this"}, writes=True) as program:
        seen = program.read_all().decode()

    assert "GIVEN=this" in seen
    assert "secret" not in seen


def test_a_program_that_still_runs_is_ended() -> None:
    with Program(["/bin/sleep", "60"], env={}, writes=True) as program:
        started = time.monotonic()
        pid = program._process.pid

    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    program.stop()
