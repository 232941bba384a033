"""What up, down, status and deploy say without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deployments.local import LocalServer
from deployments.process import Child, start_time
from kryonix_backup.cli.main import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KRYONIX_HOME", str(tmp_path))
    (tmp_path / "prefect").mkdir()
    return tmp_path / "prefect"


def child(name: str, home: Path, *, alive: bool) -> Child:
    started = start_time(os.getpid()) if alive else 1
    return Child(name, os.getpid(), started or 0, str(home / f"{name}.log"))


def test_what_has_ended_is_named_with_what_starts_it_again(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = (child("gold", home, alive=True), child("silver", home, alive=False))
    LocalServer("http://127.0.0.1:9", child("server", home, alive=False), workers, True).save(home)

    code = main(["status"])
    said = capsys.readouterr().out

    assert code == 1
    assert "Prefect does not run as it should at http://127.0.0.1:9\n" in said
    assert f"  server: has ended (log {home}/server.log)\n" in said
    assert "  worker of gold: runs (" in said
    assert "  worker of silver: has ended (" in said
    assert "next: 'kryonix up' starts what has ended" in said


@pytest.mark.parametrize("word", ["up", "down"])
def test_a_home_that_cannot_be_used_is_told(
    word: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("KRYONIX_HOME", str(home / "file"))

    code = main([word])
    said = capsys.readouterr().err

    assert code == 10
    assert f"error: {home}/file/prefect cannot be used: Not a directory\n" in said
    assert "next: Set KRYONIX_HOME" in said


@pytest.mark.parametrize("word", ["up", "down", "status"])
@pytest.mark.parametrize("state", ["{", "{}", "[]", json.dumps({"workers": 1})])
def test_a_state_that_says_nothing_is_told(
    word: str, state: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "state.json").write_text(state)

    code = main([word])

    assert code == 10
    assert "state.json does not say what 'kryonix up' started" in capsys.readouterr().err


def test_without_tenants_there_is_nothing_to_deploy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "--dry-run"]) == 0
    assert capsys.readouterr().out == "no tenants yet; see 'kryonix tenant add --help'\n"


class _Busy(BaseHTTPRequestHandler):
    """A Prefect server that is well, and does nothing."""

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/api/health" else 503)

    def do_POST(self) -> None:
        self._answer(503)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_words: object) -> None:
        """Nothing."""


def test_a_server_that_has_too_much_to_do_is_told_as_passing(home: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Busy) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        LocalServer(url, child("server", home, alive=True), (), True).save(home)
        said = subprocess.run(
            [sys.executable, "-m", "kryonix_backup.cli.main", "deploy", "acme", "--remove"],
            env={**os.environ, "PREFECT_CLIENT_MAX_RETRIES": "0"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        server.shutdown()

    assert said.returncode == 16
    assert "error: the Prefect server answers 503 to /api/" in said.stderr
    assert "kryonix status" in said.stderr
