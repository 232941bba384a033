"""A Prefect server for the flows that run in this process, and a tenant on it."""

from __future__ import annotations

import gc
import os
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar, cast

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import State
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

from deployments.tenants import save_tenant
from kryonix_backup.sdk.client import Client
from kryonix_backup.settings import RootKey, Secret, TenantSettings
from tasks.policy import BACKUPS_LIMIT

PASSPHRASE = "correct horse battery staple"
Asked = ParamSpec("Asked")
Told = TypeVar("Told")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prefect's clients leave sockets to the garbage collector, which finds them whenever."""
    for item in items:
        if "prefect_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.service)
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a flow's clients left behind is not found in another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Started once; without heartbeats, which would make each flow a second longer."""
    with (
        prefect_test_harness(server_startup_timeout=90),
        temporary_settings(
            {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_TO_API_ENABLED: False}
        ),
    ):
        with get_client(sync_client=True) as client:
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=BACKUPS_LIMIT, limit=50)
            )
        yield


class Tenant(NamedTuple):
    """A tenant with two sources, saved as blocks; its repository is not made yet."""

    id: str
    settings: TenantSettings
    documents: Path
    photos: Path
    repository: Path

    def client(self) -> Client:
        """The engine's client, to look at what the flows did."""
        return Client(self.settings, RootKey(passphrase=Secret(PASSPHRASE)))

    def stored(self) -> dict[str, int]:
        """Every pack with its size."""
        packs = self.repository / "packs"
        return {path.name: path.stat().st_size for path in packs.rglob("*") if path.is_file()}


def state_of(
    flow: Flow[Asked, State[Told]], *arguments: Asked.args, **named: Asked.kwargs
) -> State[Told]:
    """How a run of the flow ends: Prefect makes the state that the function gives the run's own."""
    return cast("State[Told]", flow(*arguments, return_state=True, **named))


@pytest.fixture
def tenant(prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tenant:
    name = f"acme-{secrets.token_hex(4)}"
    documents, photos, repository = (tmp_path / each for each in ("docs", "photos", "repository"))
    for folder in (documents, photos):
        (folder / "in").mkdir(parents=True)
        (folder / "in/a.bin").write_bytes(os.urandom(300_000))
        (folder / "b.txt").write_text("b" * 5000)
    settings = TenantSettings.from_plain(
        {
            "id": name,
            "tier": "standard",
            "regions": [{"name": "primary", "url": f"file://{repository}"}],
            "sources": [
                {"name": "documents", "url": f"files://{documents}"},
                {"name": "photos", "url": f"files://{photos}"},
            ],
        }
    )
    monkeypatch.setenv("KRYONIX_PASSPHRASE", PASSPHRASE)
    save_tenant(settings)
    return Tenant(name, settings, documents, photos, repository)


@pytest.fixture
def onboarded(tenant: Tenant) -> Tenant:
    """A tenant whose repository is there."""
    Client.onboard(tenant.settings, RootKey(passphrase=Secret(PASSPHRASE)))
    return tenant
