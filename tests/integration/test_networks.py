"""A network and a server that break off, refuse, throttle and fall silent, at every request."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from kryonix_backup.errors import StoreThrottled, StoreUnavailable
from kryonix_backup.testing.s3_servers import S3Server, start_seaweedfs
from tests.integration import trees
from tests.integration.command import Command
from tests.integration.stores import Place, repository_of
from tests.integration.sweep import Sweep
from tests.services.s3 import TENANT_A
from tests.services.s3_proxy import (
    Answer,
    AnswerLost,
    CutAnswer,
    CutRequest,
    Fault,
    S3Proxy,
    Silence,
)

pytestmark = pytest.mark.service

FAULTS = {
    "the connection is cut while the request is sent": CutRequest(0),
    "the connection is cut before the answer": AnswerLost(),
    "the connection is cut within the answer": CutAnswer(7),
    "503 SlowDown": Answer(503, "SlowDown"),
}


@pytest.fixture
def proxy(seaweedfs: S3Server) -> Iterator[S3Proxy]:
    """A network before SeaweedFS."""
    with S3Proxy(seaweedfs.endpoint) as between:
        yield between


@pytest.fixture
def shaky(seaweedfs: S3Server, proxy: S3Proxy) -> Place:
    """SeaweedFS beyond that network."""
    return Place.in_bucket(seaweedfs, TENANT_A, proxy.endpoint)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_one_fault_at_any_request_of_a_backup_costs_nothing(
    fault: Fault, shaky: Place, proxy: S3Proxy, tmp_path: Path
) -> None:
    """`script/campaign network` does the same with processes, and with outages."""
    found = Sweep(shaky, proxy, tmp_path, by_command=False).run(fault)

    assert found.requests >= 8
    assert set(found.codes) == {0}, "one fault is never noticed"


def _onboarded(place: Place, tmp_path: Path, *, mib: int = 3) -> tuple[Command, str]:
    command = Command.with_key_file(tmp_path / "home", **place.environment)
    trees.grow(tmp_path / "tree", Random(5), small=20, large_mib=mib)
    url = place.new()
    words = ["tenant", "add", "acme", "--region", f"primary={url}"]
    command.run(*words, "--source", f"docs=files://{tmp_path / 'tree'}")
    command.run("backup", "acme")
    trees.edit(tmp_path / "tree", Random(6), new_mib=1)
    return command, url


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(503, "SlowDown"), StoreThrottled.exit_code),
        (Answer(500, "InternalError"), StoreUnavailable.exit_code),
    ],
)
def test_a_server_that_only_refuses_ends_the_run_with_a_next_step(
    answer: Answer, code: int, shaky: Place, proxy: S3Proxy, tmp_path: Path
) -> None:
    command, _ = _onboarded(shaky, tmp_path)
    with proxy.lock:
        proxy.requests.clear()
        proxy.faults.extend([None] * 4 + [answer] * 60)

    refused = command.run("backup", "acme", expect=code)
    with proxy.lock:
        proxy.faults.clear()

    assert proxy.endpoint in refused.message
    assert f"the server says {answer.status} {answer.code}" in refused.message
    assert command.report("verify", "acme", "--level", "data")["status"] == "ok"
    command.run("backup", "acme")
    assert command.report("verify", "acme", "--level", "data")["snapshots"] == 2


def test_a_server_that_falls_silent_is_not_waited_for_longer_than_was_said(
    shaky: Place, proxy: S3Proxy, tmp_path: Path
) -> None:
    quick = Place(f"{shaky.url}&timeout=0.5", shaky.environment)
    command, _ = _onboarded(quick, tmp_path)
    with proxy.lock:
        proxy.requests.clear()
        proxy.faults.extend([None] * 4 + [Silence(2.0)] * 60)
    started = time.monotonic()

    silent = command.run("backup", "acme", expect=StoreUnavailable.exit_code)

    with proxy.lock:
        proxy.faults.clear()
    assert time.monotonic() - started < 30
    assert "no answer" in silent.message
    command.run("backup", "acme")
    assert command.report("verify", "acme", "--level", "data")["snapshots"] == 2


def test_nobody_listening_is_told_with_the_address(tmp_path: Path, shaky: Place) -> None:
    command, url = _onboarded(shaky, tmp_path)
    nowhere = url.replace(url.split("endpoint=")[1].split("&")[0], "http://127.0.0.1:9")
    words = ["snapshots", "acme", "--region", f"primary={nowhere}"]

    refused = command.run(*words, expect=StoreUnavailable.exit_code)

    assert "http://127.0.0.1:9" in refused.message
    assert "Check the network" in refused.hint


def test_a_server_killed_in_the_middle_and_started_again_loses_nothing(tmp_path: Path) -> None:
    with start_seaweedfs(tmp_path / "seaweedfs", [TENANT_A]) as server:
        place = Place.in_bucket(server, TENANT_A)
        command, url = _onboarded(place, tmp_path, mib=30)
        trees.grow(tmp_path / "tree/more", Random(8), small=100, large_mib=30)
        running = command.start("backup", "acme", "--json")
        known = len(list(repository_of(url, command).store.list("packs/")))
        while len(list(repository_of(url, command).store.list("packs/"))) == known:
            assert running.poll() is None
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        _start_again(server)

        outcome = command.finished(running, "backup", "acme")

        assert outcome.code in {0, StoreUnavailable.exit_code}, outcome
        assert command.report("verify", "acme", "--level", "data")["status"] == "ok"
        last = command.report("backup", "acme")
        words = ["restore", "acme", "--to", f"docs=files://{tmp_path / 'back'}"]
        command.run(*words, "--snapshot", last["snapshot"])
        assert not trees.differences(trees.state(tmp_path / "back"), trees.state(tmp_path / "tree"))
        server.stop()


def _start_again(server: S3Server) -> None:
    """The same command, with the same state, ports and credentials."""
    log = server.log.open("ab")
    with log:
        server.process = subprocess.Popen(
            server.process.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}, cwd=server.log.parent,
            start_new_session=True,
        )  # fmt: skip
