from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from kryonix_backup.errors import ConfigError
from kryonix_backup.model import MIB
from kryonix_backup.storage import bandwidth as module
from kryonix_backup.storage.bandwidth import SLACK_S, Bandwidth
from kryonix_backup.testing.clock import FixedClock

MBIT = 8 * 10**6  # a rate of 1 MB/s
SHARER = """
import sys, pathlib
from kryonix_backup.clock import SystemClock
from kryonix_backup.storage.bandwidth import Bandwidth
one = Bandwidth(pathlib.Path(sys.argv[1]), 8_000_000, SystemClock())
for _ in range(20):
    # When it is paid for says when it was begun, however late this process is woken.
    print(one.take(8192) - 8192 / 1e6)
"""
KILLED = """
import sys, pathlib
from kryonix_backup.clock import SystemClock
from kryonix_backup.storage.bandwidth import Bandwidth
one = Bandwidth(pathlib.Path(sys.argv[1]), 8_000, SystemClock())
one.take(100_000)
print("paid", flush=True)
one.take(100_000)
"""


def test_what_moved_is_paid_for_at_the_rate(tmp_path: Path) -> None:
    clock = FixedClock()
    one = Bandwidth(tmp_path / "acme" / "bandwidth", MBIT, clock)

    one.wait(one.take(10**6))
    assert clock.monotonic() == pytest.approx(1.0, abs=SLACK_S + 1e-6)
    for _ in range(9):
        one.wait(one.take(10**6))

    assert clock.monotonic() == pytest.approx(10.0, abs=SLACK_S + 1e-6)


def test_a_pack_holds_up_what_comes_after_it(tmp_path: Path) -> None:
    clock = FixedClock()
    one, two = (Bandwidth(tmp_path / "bandwidth", MBIT, clock) for _ in range(2))

    one.take(64 * MIB)
    assert clock.slept == []
    two.take(1)

    assert clock.monotonic() == pytest.approx(64 * MIB / 10**6, abs=SLACK_S)


def test_the_time_in_which_bytes_came_counts(tmp_path: Path) -> None:
    clock = FixedClock()
    one = Bandwidth(tmp_path / "bandwidth", MBIT, clock)

    for _ in range(10):  # 0.4 s of every second go by while the bytes arrive
        begun = one.now()
        clock.sleep(0.4)
        one.wait(one.take(10**6, begun))

    assert clock.monotonic() == pytest.approx(10.0, abs=SLACK_S + 1e-6)


def test_idling_saves_up_nothing(tmp_path: Path) -> None:
    clock = FixedClock()
    one = Bandwidth(tmp_path / "bandwidth", MBIT, clock)
    one.take(1)
    clock.sleep(3600)
    begun = clock.monotonic()

    one.wait(one.take(10**6))
    one.wait(one.take(10**6))

    assert clock.monotonic() - begun == pytest.approx(2.0, abs=SLACK_S + 1e-6)


@given(
    rate=st.integers(10**6, 10**10),
    moves=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 64 * MIB), st.floats(0, 2)),
        min_size=1, max_size=40,
    ),
)  # fmt: skip
@example_settings(max_examples=60)
def test_no_window_has_more_than_its_rate_and_one_object(
    rate: int, moves: list[tuple[int, int, float]]
) -> None:
    """Five processes, each with pauses of its own, one after another as the kernel queues them."""
    clock = FixedClock()
    begun: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bandwidth"
        sharers = [Bandwidth(path, rate, clock) for _ in range(5)]
        for who, count, pause in moves:
            clock.sleep(pause * count / rate)
            sharers[who].take(count)
            begun.append((clock.monotonic(), count))

    assert_within(begun, rate / 8)


def assert_within(begun: list[tuple[float, int]], bytes_s: float) -> None:
    """That no window from one beginning to another has more than its rate and one object."""
    sums = [0, *accumulate(count for _, count in begun)]
    for first in range(len(begun)):
        for last in range(first, len(begun)):
            span = begun[last][0] - begun[first][0]
            allowed = bytes_s * (span + SLACK_S) + begun[last][1]
            assert sums[last + 1] - sums[first] <= allowed * (1 + 1e-9) + 1


def test_processes_share_one_rate(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SHARER, str(tmp_path / "bandwidth")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    begun = []
    for each in running:
        lines, _ = each.communicate()
        assert each.returncode == 0
        begun += [(float(line), 8192) for line in lines.splitlines()]

    assert len(begun) == 3 * 20
    assert_within(sorted(begun), 10**6)


def test_a_process_that_is_killed_leaves_nothing_taken_behind(tmp_path: Path) -> None:
    path = tmp_path / "bandwidth"
    waiting = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"paid\n"
    while path.stat().st_size == 0 or _is_free(path):
        pass  # until it holds the lock, waiting for its second turn
    before = path.read_bytes()
    waiting.kill()
    waiting.communicate()

    assert path.read_bytes() == before
    assert _is_free(path)


def _is_free(path: Path) -> bool:
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_threads_take_turns(tmp_path: Path) -> None:
    clock = FixedClock()
    one = Bandwidth(tmp_path / "bandwidth", MBIT, clock)
    threads = [threading.Thread(target=one.take, args=(10**6,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert clock.monotonic() == pytest.approx(7.0, abs=SLACK_S + 1e-6)


@pytest.mark.parametrize(
    "body",
    [b"", b"short", os.urandom(24), bytes(24), module._STATE.pack(module._boot(), 1e18),
     module._STATE.pack(module._boot(), float("nan")), module._STATE.pack(bytes(16), 500.0)],
    ids=["empty", "short", "noise", "zeros", "far", "no number", "another boot"],
)  # fmt: skip
def test_a_file_of_another_boot_or_of_nobody_holds_nothing_up(tmp_path: Path, body: bytes) -> None:
    clock = FixedClock()
    (tmp_path / "bandwidth").write_bytes(body)

    Bandwidth(tmp_path / "bandwidth", MBIT, clock).take(10**6)

    assert clock.slept == []


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="file/bandwidth cannot be kept"):
        Bandwidth(tmp_path / "file" / "bandwidth", MBIT, FixedClock()).take(1)


def test_a_machine_without_a_boot_id_has_one_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BOOT_ID", tmp_path / "none")

    assert module._boot.__wrapped__() == bytes(16)
