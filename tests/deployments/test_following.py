"""Logs are followed by a run of the pool's worker, and by its successor when it is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kryonix_backup.settings import TenantSettings
from kryonix_backup.tenancy.registry import Registry
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions
from tests.deployments.conftest import Kryonix
from tests.deployments.test_local import ask, children
from tests.services.postgres import is_followed, new_database

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with start_postgres(versions()[-1]) as server:
        yield server


def claim(up: dict[str, Any]) -> dict[str, Any]:
    """The newest claim to the pool, with its rows."""
    asked = {"artifacts": {"key": {"any_": ["follow-professional"]}}, "sort": "CREATED_DESC"}
    found = ask(up, "artifacts/filter", asked)
    return {**found[0], "rows": json.loads(found[0]["data"])} if found else {"id": "", "rows": []}


def followed(up: dict[str, Any], tenant: str, before: str = "") -> dict[str, Any]:
    """The claim of a run that follows the tenant, once there is another than that one."""
    for _ in range(450):
        found = claim(up)
        rows = {row["Tenant"]: row for row in found["rows"]}
        if found["id"] != before and rows.get(tenant, {}).get("Standing") == "followed":
            return found
        time.sleep(0.2)
    raise AssertionError(claim(up))


def test_a_killed_run_has_a_successor_at_once(
    kryonix: Kryonix, up: dict[str, Any], postgres: PostgresServer
) -> None:
    database = new_database(postgres)
    settings = TenantSettings.from_plain(
        {
            "id": "umbra",
            "tier": "professional",
            "regions": [{"name": "primary", "url": f"file://{kryonix.root}/umbra-primary"}],
            "sources": [{"name": "db", "url": postgres.url(database)}],
        }
    )
    Registry.at(kryonix.env).add(settings)
    assert kryonix.run("flow", "onboard", "umbra", "--watch")["state"] == "Completed"
    kryonix.run("source", "prepare", "umbra", "db")
    kryonix.run("flow", "follow", "umbra")
    first = followed(up, "umbra")

    worker = next(each["pid"] for each in kryonix.run("status")["workers"]
                  if each["pool"] == "professional")  # fmt: skip
    os.kill(list(children(worker))[-1], signal.SIGKILL)
    with postgres.connect(database) as connection:
        connection.execute("create table t (a int primary key)")
        connection.execute("insert into t values (1)")
    second = followed(up, "umbra", first["id"])

    assert second["flow_run_id"] != first["flow_run_id"]
    ended = kryonix.run("flow", "follow", "umbra", "--watch")
    assert "followed by another run" in ended["message"]

    run = f"flow_runs/{second['flow_run_id']}"
    ask(up, f"{run}/set_state", {"state": {"type": "CANCELLING"}})
    while is_followed(postgres, database):
        time.sleep(0.1)
