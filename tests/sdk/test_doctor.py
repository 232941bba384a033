"""The doctor finds what would stop a backup."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from kryonix_backup.crypto.keystore import ManagedKeyStore
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.sdk.doctor import Check, examine
from kryonix_backup.sdk.tenants import add_tenant, tenant_keys
from kryonix_backup.testing.key_stores import HsmToken
from tests.crypto.stores.contract import new_tenant
from tests.sdk.conftest import Machine
from tests.services.softhsm import softhsm, token

__all__ = ["softhsm", "token"]


def _failed(env: dict[str, str]) -> dict[str, Check]:
    return {check.what: check for check in examine(env) if check.status != "pass"}


def test_a_machine_that_is_well_passes(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)

    assert _failed(machine.env) == {}
    looked_at = [check.what for check in examine(machine.env)]
    assert "tenant acme: region secondary" in looked_at
    assert any(what.startswith("tenant acme: source files") for what in looked_at)


def test_a_lost_region_is_found(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    shutil.rmtree(machine.root / "secondary")

    (check,) = _failed(machine.env).values()
    assert (check.what, check.status, check.exit_code) == (
        "tenant acme: region secondary", "fail", 51,
    )  # fmt: skip
    assert check.next


def test_a_missing_key_leaves_regions_unknown(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    env = {"KRYONIX_HOME": machine.env["KRYONIX_HOME"]}

    found = _failed(env)
    assert found["tenant acme: key"].exit_code == 15
    assert found["tenant acme: region primary"].status == "unknown"


def test_what_to_do_next_names_the_tenant(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    tenant_keys("acme", env=machine.env).destroy()

    for check in _failed(machine.env).values():
        assert "kryonix keys acme destroy" in check.next


def test_a_missing_source_is_found(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    shutil.rmtree(machine.files)

    found = _failed(machine.env)
    (check,) = [check for what, check in found.items() if "source files" in what]
    assert f"kryonix tenant show {machine.settings.id}" in check.next


def test_a_damaged_registration_is_found(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    (machine.root / "home" / "tenants" / "acme.json").write_text("{")

    assert _failed(machine.env)["tenant acme"].exit_code == 10


def test_a_home_that_cannot_be_written_is_found(machine: Machine) -> None:
    (machine.root / "file").write_text("not a directory")

    found = _failed({"KRYONIX_HOME": str(machine.root / "file" / "home")})
    assert {"home", "catalog", "tenants"} <= set(found)


@pytest.mark.service
def test_a_key_store_that_answers_and_one_that_does_not(machine: Machine, token: HsmToken) -> None:
    tenant = new_tenant()
    settings = replace(machine.settings, id=tenant)
    add_tenant(settings, env=machine.env)
    env = {"KRYONIX_HOME": machine.env["KRYONIX_HOME"], **token.environment()}
    what = f"tenant {tenant}: key"

    assert _failed(env)[what].exit_code == 54  # no key is made yet
    store = open_key_store(token.root, tenant)
    assert isinstance(store, ManagedKeyStore)
    store.renew()
    (evidence,) = [check.evidence for check in examine(env) if check.what == what]
    assert f"kryonix-{tenant}/v1" in evidence
    refused = _failed({**env, "KRYONIX_PIN": "no-pin-of-this-token"})[what]
    assert (refused.exit_code, "no-pin-of-this-token" in str(refused)) == (18, False)
