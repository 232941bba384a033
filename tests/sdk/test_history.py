"""The catalog forgets nothing that a repository remembers."""

from __future__ import annotations

import shutil

import pytest

from kryonix_backup.catalog.record import SnapshotRecord
from kryonix_backup.errors import ConfigError, RepositoryMissing
from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.history import read_history, rebuild
from kryonix_backup.sdk.tenants import add_tenant, list_tenants
from kryonix_backup.sdk.wiring import open_catalog
from tests.sdk.conftest import Machine


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
