"""One run follows the logs of a pool's tenants, and another takes over without a gap."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from itertools import pairwise
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort

from deployments.tenants import save_tenant
from flows.backup import backup_tenant
from flows.follow import follow_logs
from kryonix_backup.errors import ConfigError
from kryonix_backup.model import BackupKind, Tier
from kryonix_backup.sdk import following
from kryonix_backup.sdk.client import Client
from kryonix_backup.settings import RootKey, Secret, TenantSettings
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions
from tasks import follow
from tests.flows.conftest import PASSPHRASE, Tenant, state_of
from tests.services.postgres import new_database

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with start_postgres(versions()[-1]) as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return new_database(postgres)


@pytest.fixture
def client(onboarded: Tenant, postgres: PostgresServer, database: str) -> Client:
    """A tenant with a prepared database, saved as a block."""
    plain = {
        **onboarded.settings.to_plain(),
        "sources": [
            {"name": "db", "url": postgres.url(database)},
            {"name": "documents", "url": f"files://{onboarded.documents}"},
        ],
    }
    settings = TenantSettings.from_plain(plain)
    save_tenant(settings)
    client = Client(settings, RootKey(passphrase=Secret(PASSPHRASE)))
    client.prepare_source("db", consent=True)
    return client


class Following:
    """A run in a thread of its own, as a worker would have it in a process."""

    def __init__(self, runs: list[Following]) -> None:
        runs.append(self)
        self.said: list[Any] = []
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="follow-logs"
        )
        self._thread.start()

    def _run(self) -> None:
        self.said.append(follow_logs(Tier("standard")))

    def ended(self) -> Any:
        """What it said, once it has ended."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.said[0]


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Following]]:
    """Those that a test has begun; they look more often here, and end with it."""
    monkeypatch.setattr(follow, "LOOK_EVERY_S", 0.2)
    monkeypatch.setattr(follow, "LogFollowers", lambda every_s: following.LogFollowers(0.2))
    begun: list[Following] = []
    yield begun
    monkeypatch.setattr(follow, "is_succeeded", lambda *_: True)
    for run in begun:
        run.ended()


def newest() -> Artifact | None:
    chosen = ArtifactFilter(key=ArtifactFilterKey(any_=["follow-standard"]))
    with get_client(sync_client=True) as server:
        found = server.read_artifacts(
            artifact_filter=chosen, sort=ArtifactSort.CREATED_DESC, limit=1, offset=0
        )
    return found[0] if found else None


def rows() -> list[dict[str, Any]]:
    claim = newest()
    found: list[dict[str, Any]] = json.loads(str(claim.data)) if claim is not None else []
    return found


def wait_until(happened: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(300):
        if happened():
            return
        waiting.wait(0.1)
    raise AssertionError(rows())


def is_followed(tenant: str, before: object = None) -> bool:
    """By a run whose claim is another than that."""
    claim = newest()
    row = [each for each in rows() if each["Tenant"] == tenant]
    return (
        [each["Standing"] for each in row] == ["followed"]
        and claim is not None
        and claim.id != before
    )


def test_a_run_follows_until_a_successor_does(
    client: Client,
    postgres: PostgresServer,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    runs: list[Following],
) -> None:
    with postgres.connect(database) as connection:
        connection.execute("create table t (a int primary key)")
        first = Following(runs)
        wait_until(lambda: bool(rows()) and is_followed(client.tenant))
        assert "followed by another run" in state_of(follow_logs, Tier("standard")).result()
        of_first = newest()
        assert of_first is not None

        monkeypatch.setattr(follow, "LIFETIME_S", 0.0)
        second = Following(runs)
        for number in range(200):
            connection.execute("insert into t values (%s)", (number,))
        assert "handed over" in first.ended()
        wait_until(lambda: is_followed(client.tenant, of_first.id))
        (row,) = rows()
        assert (row["Source"], row["Needs"], row["Error"]) == ("db", "", "")
        of_second = newest()
        assert of_second is not None
        third = Following(runs)
        assert "handed over" in second.ended()
        wait_until(lambda: is_followed(client.tenant, of_second.id))
        monkeypatch.setattr(follow, "is_succeeded", lambda *_: True)
        third.ended()

    book = client.repository.log(client.log_sources()[0])
    (chain,) = book.chains()
    headers = [book.header(chain, number) for number in range(book.chains()[chain])]
    assert sum(header.commits for header in headers) >= 200
    assert all(one.end == other.start for one, other in pairwise(headers))
    assert client.back_up_logs()["db"].changes == 0


def test_a_gap_asks_for_a_full_backup_and_says_how_without_a_deployment(
    client: Client,
    postgres: PostgresServer,
    database: str,
    caplog: pytest.LogCaptureFixture,
    runs: list[Following],
) -> None:
    client.back_up_logs()
    with postgres.connect(database) as connection:
        connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
            " where database = current_database()"
        )
    Following(runs)
    wait_until(lambda: any(row.get("Needs") == "a full backup" for row in rows()))
    wait_until(lambda: f"kryonix backup {client.tenant} --kind full" in caplog.text)
    assert caplog.text.count("needs a full backup") == 1


def test_a_server_that_is_away_changes_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers: Iterator[RuntimeError | bool] = iter(
        [RuntimeError("failed to reach API"), False, True]
    )

    def is_succeeded(*_: object) -> bool:
        answer = next(answers)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    monkeypatch.setattr(follow, "is_succeeded", is_succeeded)

    assert "handed over" in state_of(follow_logs, Tier("standard")).result()
    assert "the logs are kept: failed to reach API" in caplog.text


def test_a_backup_of_the_log_alone_is_a_run_of_its_own(client: Client) -> None:
    report = state_of(backup_tenant, client.tenant, BackupKind.LOG).result()

    assert report["status"] == "complete"
    assert list(report["sources"]) == ["db"]
    assert report["sources"]["db"]["restorable"] is not None
    with pytest.raises(ConfigError, match="keeps a transaction log"):
        backup_tenant(client.tenant, BackupKind.LOG, ["documents"])
