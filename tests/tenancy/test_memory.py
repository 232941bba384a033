from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.errors import ConfigError
from kryonix_backup.limits import LEAST_MEMORY_BYTES
from kryonix_backup.tenancy.memory import packs_at_once, share_of_memory, shares_of

HOLD = """
import sys, pathlib
from kryonix_backup.tenancy.memory import share_of_memory
with share_of_memory(pathlib.Path(sys.argv[1]), int(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@given(memory=st.integers(LEAST_MEMORY_BYTES, 1 << 40), more=st.integers(0, 1 << 32))
def test_more_memory_is_never_less_at_once(memory: int, more: int) -> None:
    assert 1 <= packs_at_once(memory) <= packs_at_once(memory + more) <= 3
    assert shares_of(memory) >= 1


def test_the_tiers_run_several_operations_at_once() -> None:
    assert (packs_at_once(4 * 10**9), shares_of(4 * 10**9)) == (3, 5)
    assert shares_of(8 * 10**9) == 11
    assert (packs_at_once(LEAST_MEMORY_BYTES), shares_of(LEAST_MEMORY_BYTES)) == (1, 1)


def test_who_finds_no_share_waits_for_one(tmp_path: Path) -> None:
    begun, done = threading.Event(), threading.Event()

    def second() -> None:
        begun.set()
        with share_of_memory(tmp_path, LEAST_MEMORY_BYTES):
            done.set()

    thread = threading.Thread(target=second)
    with share_of_memory(tmp_path, LEAST_MEMORY_BYTES):
        thread.start()
        begun.wait()
        assert not done.wait(0.2)
    thread.join(10)

    assert done.is_set()


def test_shares_are_several_where_there_is_memory(tmp_path: Path) -> None:
    with share_of_memory(tmp_path, 4 * 10**9), share_of_memory(tmp_path, 4 * 10**9):
        assert len(list(tmp_path.iterdir())) == 2


def test_a_process_that_is_killed_gives_its_share_back(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), str(LEAST_MEMORY_BYTES)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.communicate()

    with share_of_memory(tmp_path, LEAST_MEMORY_BYTES):
        pass


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(ConfigError, match="file/acme cannot be kept"),
        share_of_memory(tmp_path / "file" / "acme", LEAST_MEMORY_BYTES),
    ):
        pass
