"""The catalog forgets nothing that a repository remembers."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from kryonix_backup.catalog.record import SnapshotRecord
from kryonix_backup.errors import ConfigError, RepositoryMissing
from kryonix_backup.model import BackupKind, Tier
from kryonix_backup.sdk.history import read_history, rebuild
from kryonix_backup.sdk.tenants import add_tenant, list_tenants
from kryonix_backup.sdk.wiring import open_catalog
from kryonix_backup.testing.s3_servers import S3Server
from tests.sdk.conftest import Machine
from tests.services.s3 import TENANT_A


def _snapshots(machine: Machine) -> list[SnapshotRecord]:
    with open_catalog(machine.env) as catalog:
        return catalog.snapshots(machine.settings.id)


def test_a_rebuilt_catalog_equals_the_original(machine: Machine) -> None:
    client = add_tenant(machine.settings, env=machine.env).client
    client.backup()
    (machine.files / "new").write_text("new")
    client.backup(kind=BackupKind.INCREMENTAL)
    before = (read_history("acme", env=machine.env), _snapshots(machine), list_tenants(machine.env))
    shutil.rmtree(machine.root / "home")

    rebuilt = rebuild("acme", [machine.region("primary")], env=machine.env)

    after = (read_history("acme", env=machine.env), _snapshots(machine), list_tenants(machine.env))
    assert after == before
    assert len(before[0]) == 2
    assert rebuilt.to_plain() == {
        "tenant": "acme", "snapshots": 2, "settings": machine.settings.to_plain(),
    }  # fmt: skip


@pytest.mark.service
def test_a_tenant_that_is_registered_again_is_reached_as_it_was(
    machine: Machine, seaweedfs: S3Server
) -> None:
    place = seaweedfs.region(TENANT_A)
    url = place.url.replace("?", "/rebuilt?")
    region = replace(place, url=url, private_endpoint=seaweedfs.endpoint)
    settings = replace(machine.settings, regions=(region,), tier=Tier("enterprise"))
    add_tenant(settings, env=machine.env).client.backup()
    shutil.rmtree(machine.root / "home")

    rebuild("acme", [replace(region, private_endpoint=None)], env=machine.env)

    (there,) = list_tenants(machine.env)
    assert there.primary.to_plain() == region.to_plain()


def test_rebuilding_keeps_what_only_the_catalog_knew(machine: Machine) -> None:
    client = add_tenant(machine.settings, env=machine.env).client
    client.backup()
    with pytest.raises(ConfigError):
        client.backup(kind=BackupKind.LOG)
    before = read_history("acme", env=machine.env)

    rebuild("acme", env=machine.env)

    assert read_history("acme", env=machine.env) == before
    assert sorted(run.status for run in before) == ["complete", "failed"]


def test_an_empty_repository_cannot_say_what_the_tenant_is(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    shutil.rmtree(machine.root / "home")

    with pytest.raises(ConfigError, match="has no snapshot") as caught:
        rebuild("acme", [machine.region("primary")], env=machine.env)
    assert "tenant add" in caught.value.hint
    assert list_tenants(machine.env) == []


def test_a_tenant_needs_a_primary_region(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)

    with pytest.raises(RepositoryMissing):
        rebuild("acme", [machine.region("elsewhere")], env=machine.env)


def test_nobody_has_no_history(machine: Machine) -> None:
    assert read_history("nobody", env=machine.env) == []
