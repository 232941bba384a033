from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kryonix_backup import dumps
from kryonix_backup.errors import ConfigError

_LOOK = """
import ctypes, os, subprocess, sys
from pathlib import Path
from kryonix_backup.dumps import forbid_dumps
forbid_dumps()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
print(Path("/proc/self/environ").stat().st_uid)
print(subprocess.run(["cat", "/proc/self/limits"], capture_output=True, text=True).stdout)
with open("/dev/null") as file:
    print(os.path.exists(f"/proc/self/fd/{file.fileno()}"), os.listdir("/proc/self/fd") != [])
"""


def _run(code: str, user: int | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, user=user,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    return done.stdout.splitlines()


def test_a_process_has_no_core_and_belongs_to_nobody_else() -> None:
    dumpable, owner, *rest = _run(_LOOK)

    assert dumpable == "0"
    assert owner == "0", "the kernel gives what is under /proc to root"
    assert "True True" in rest, "what we look up of ourselves is still there"
    limits = [line.split() for line in rest if line.startswith("Max core file size")]
    assert limits == [["Max", "core", "file", "size", "0", "0", "bytes"]], "children inherit it"


def test_a_crash_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, resource; from kryonix_backup.dumps import forbid_dumps\n"
        "most = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"  # 0 where a test forbade them here
        "resource.setrlimit(resource.RLIMIT_CORE, (most, most))\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "forbid_dumps()\n"
        "os.abort()"
    )

    with pytest.raises(subprocess.CalledProcessError) as ended:
        _run(code)

    assert ended.value.returncode == -6
    assert not list(tmp_path.iterdir())


def test_a_system_that_forbids_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumps, "_PR_SET_DUMPABLE", 999_999)  # which no kernel knows

    with pytest.raises(ConfigError, match="core dumps"):
        dumps.forbid_dumps()
