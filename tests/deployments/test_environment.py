from __future__ import annotations

import base64
from pathlib import Path

from deployments.environment import (
    client_environment,
    encryption_key,
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
