from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.model import TenantId
from kryonix_backup.tenancy.cores import cores_of, on_cores

ACME = TenantId("acme")


@given(
    there=st.sets(st.integers(0, 300), min_size=1, max_size=40),
    count=st.integers(1, 64),
    name=st.text("abcxyz", min_size=1, max_size=8),
)
def test_cores_are_as_many_as_asked_and_always_the_same(
    there: set[int], count: int, name: str
) -> None:
    chosen = cores_of(TenantId(name), count, there)

    assert chosen <= there
    assert len(chosen) == min(count, len(there))
    assert chosen == cores_of(TenantId(name), count, sorted(there, reverse=True))
    assert chosen >= cores_of(TenantId(name), max(1, count - 1), there) or count >= len(there)


def test_tenants_are_spread() -> None:
    names = [TenantId(f"tenant{number}") for number in range(200)]

    assert {core for name in names for core in cores_of(name, 2, range(16))} == set(range(16))


def test_threads_and_programs_of_the_work_stay_on_its_cores() -> None:
    before = os.sched_getaffinity(0)
    inside: list[set[int]] = []
    with on_cores(ACME, 1):
        thread = threading.Thread(target=lambda: inside.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
        count = "import os; print(len(os.sched_getaffinity(0)))"
        program = subprocess.run([sys.executable, "-c", count], capture_output=True, check=True)
        with on_cores(ACME, 64):
            inside.append(os.sched_getaffinity(0))

    assert inside == [cores_of(ACME, 1, before)] * 2
    assert program.stdout == b"1\n"
    assert os.sched_getaffinity(0) == before


def test_a_system_that_forbids_it_gets_the_work_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_pid: int, _cores: set[int]) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    done = []
    with on_cores(ACME, 1):
        done.append(True)

    assert done
    assert "CPU cores is not kept: not permitted" in caplog.text
