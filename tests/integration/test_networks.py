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
    S3Proxy,
    Silence,
)

pytestmark = pytest.mark.service


@pytest.fixture
def proxy(seaweedfs: S3Server) -> Iterator[S3Proxy]:
    """A network before SeaweedFS."""
    with S3Proxy(seaweedfs.endpoint) as between:
        yield between


@pytest.fixture
def shaky(seaweedfs: S3Server, proxy: S3Proxy) -> Place:
    """SeaweedFS beyond that network."""
    return Place.in_bucket(seaweedfs, TENANT_A, proxy.endpoint)


def test_one_fault_at_any_request_of_a_backup_costs_nothing(
    shaky: Place, proxy: S3Proxy, tmp_path: Path
) -> None:
    """The worst of them; `script/campaign network` tries every one, and outages."""
    found = Sweep(shaky, proxy, tmp_path, by_command=False).run(AnswerLost())

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


def test_a_server_that_only_refuses_ends_the_run_with_a_next_step(
    shaky: Place, proxy: S3Proxy, tmp_path: Path
) -> None:
    command, _ = _onboarded(shaky, tmp_path)
    with proxy.lock:
        proxy.requests.clear()
        proxy.faults.extend([None] * 4 + [Answer(503, "SlowDown")] * 60)

    refused = command.run("backup", "acme", expect=StoreThrottled.exit_code)
    with proxy.lock:
        proxy.faults.clear()

    assert proxy.endpoint in refused.message
    assert "the server says 503 SlowDown" in refused.message
    assert command.report("verify", "acme", "--level", "data")["status"] == "ok"
    command.run("backup", "acme")
    assert command.report("verify", "acme", "--level", "data")["snapshots"] == 2


def test_a_server_that_is_silent_or_not_there_is_not_waited_for_longer_than_was_said(
    shaky: Place, proxy: S3Proxy, tmp_path: Path
) -> None:
    quick = Place(f"{shaky.url}&timeout=0.5", shaky.environment)
    command, _ = _onboarded(quick, tmp_path)
    with proxy.lock:
        proxy.requests.clear()
        proxy.faults.extend([None] * 4 + [Silence(2.0)] * 60)
    nowhere = ("snapshots", "acme", "--region", "primary=s3://bucket?endpoint=http://127.0.0.1:9")
    started = time.monotonic()

    refusing = command.start(*nowhere)
    silent = command.run("backup", "acme", expect=StoreUnavailable.exit_code)

    with proxy.lock:
        proxy.faults.clear()
    refused = command.finished(refusing, *nowhere)
    assert time.monotonic() - started < 30
    assert "no answer" in silent.message
    assert refused.code == StoreUnavailable.exit_code
    assert "http://127.0.0.1:9" in refused.message
    assert "Check the network" in refused.hint


def test_a_server_killed_in_the_middle_and_started_again_loses_nothing(tmp_path: Path) -> None:
    with start_seaweedfs(tmp_path / "seaweedfs", [TENANT_A]) as server:
        place = Place.in_bucket(server, TENANT_A)
        command, url = _onboarded(place, tmp_path, mib=3)
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
        os.killpg(server.process.pid, signal.SIGKILL)  # asked to stop, it would take its time
        server.process.wait()


def _start_again(server: S3Server) -> None:
    """The same command, with the same state, ports and credentials."""
    log = server.log.open("ab")
    with log:
        server.process = subprocess.Popen(
            server.process.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}, cwd=server.log.parent,
            start_new_session=True,
        )  # fmt: skip
