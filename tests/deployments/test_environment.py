from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.environment import (
    client_environment,
    encryption_key,
    secrets_hidden,
    server_environment,
    worker_environment,
)

URL = "http://127.0.0.1:4200"
CALLER = {
    "PATH": "/bin",
    "KRYONIX_PASSPHRASE": "open sesame",
    "KRYONIX_HOME": "/h",
    "AWS_SECRET_ACCESS_KEY": "hush",
    "PGPASSWORD": "a tenant's database",
    "PREFECT_SERVER_ENCRYPTION_KEY": "server only",
}


def test_nothing_that_opens_a_repository_reaches_the_server(tmp_path: Path) -> None:
    given = server_environment(CALLER, tmp_path, URL)

    assert not [name for name in given if name.startswith(("KRYONIX_", "AWS_", "PG"))]
    assert given["PATH"] == "/bin"
    assert given["PREFECT_SERVER_ENCRYPTION_KEY"] == "server only"


def test_workers_have_the_tenants_secrets_and_not_the_servers(tmp_path: Path) -> None:
    given = worker_environment(CALLER, tmp_path, URL)

    assert given["KRYONIX_PASSPHRASE"] == "open sesame"
    assert given["KRYONIX_HOME"] == "/h"
    assert given["PGPASSWORD"] == "a tenant's database"
    assert "PREFECT_SERVER_ENCRYPTION_KEY" not in given
    assert given["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"


def test_nobody_is_told_anything(tmp_path: Path) -> None:
    given = client_environment(tmp_path, URL)

    assert given["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert given["DO_NOT_TRACK"] == "1"
    assert given["PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT"] == "false"


def test_the_servers_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    key = encryption_key(tmp_path / "prefect")

    assert encryption_key(tmp_path / "prefect") == key
    assert len(base64.urlsafe_b64decode(key)) == 32
    assert (tmp_path / "prefect/encryption.key").stat().st_mode & 0o777 == 0o600


def test_what_is_started_meanwhile_finds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "open sesame")
    monkeypatch.setenv("HARMLESS", "here")

    with secrets_hidden():
        seen = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout

    assert "open sesame" not in seen
    assert "HARMLESS=here" in seen
    assert os.environ["KRYONIX_PASSPHRASE"] == "open sesame"


def test_prefect_asks_no_program_with_our_secrets_about_this_python(tmp_path: Path) -> None:
    """It would on its first schedule; what it asks is done before, with the secrets hidden."""
    asked = tmp_path / "file"
    asked.write_text(f"#!/bin/sh\nenv >> {tmp_path}/seen\n")
    asked.chmod(0o755)
    code = (
        "from deployments.environment import load_schedules; load_schedules()\n"
        "from prefect.client.schemas.schedules import CronSchedule\n"
        "import os; CronSchedule(cron='1 * * * *'); print(os.environ['KRYONIX_PASSPHRASE'])"
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "KRYONIX_PASSPHRASE": "sesame"}

    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout

    assert said == "sesame\n"
    assert "sesame" not in (tmp_path / "seen").read_text()
