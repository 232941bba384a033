"""One process works on a restore; the lock goes with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kryonix_backup.errors import AlreadyRunning, ConfigError
from kryonix_backup.model import RestoreId, TenantId
from kryonix_backup.sdk.lock import onboarding_lock, restore_lock

RESTORE = RestoreId("20261123t120000z-0123456789abcdef")
OTHER = RestoreId("20261123t120000z-fedcba9876543210")

HOLD = """
import sys, time
from pathlib import Path
from kryonix_backup.sdk.lock import restore_lock
with restore_lock(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_refused_and_another_restore_is_not(tmp_path: Path) -> None:
    with restore_lock(tmp_path, RESTORE):
        with pytest.raises(AlreadyRunning), restore_lock(tmp_path, RESTORE):
            pass
        with restore_lock(tmp_path, OTHER):
            pass
    with restore_lock(tmp_path, RESTORE):
        pass


def test_a_killed_process_frees_its_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), RESTORE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(AlreadyRunning), restore_lock(tmp_path, RESTORE):
        pass

    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=20)

    with restore_lock(tmp_path, RESTORE):
        pass


def test_a_program_that_was_started_meanwhile_keeps_no_lock(tmp_path: Path) -> None:
    """Between its fork and its exec every program has our open files."""
    with restore_lock(tmp_path, RESTORE):
        opened = str(tmp_path / "locks" / RESTORE)
        held = [int(each.name) for each in Path("/proc/self/fd").iterdir()
                if each.is_symlink() and str(each.readlink()) == opened]  # fmt: skip
        program = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=held)
    assert held
    with restore_lock(tmp_path, RESTORE):
        pass
    program.communicate()


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("in the way")

    with pytest.raises(ConfigError, match="locks"), restore_lock(tmp_path, RESTORE):
        pass


def test_one_process_takes_a_tenant_on(tmp_path: Path) -> None:
    acme, beta = TenantId("acme"), TenantId("beta")
    with onboarding_lock(tmp_path, acme):
        with pytest.raises(AlreadyRunning, match="acme"), onboarding_lock(tmp_path, acme):
            pass
        with onboarding_lock(tmp_path, beta):
            pass
    with onboarding_lock(tmp_path, acme):
        pass
