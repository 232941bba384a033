"""The flow rotates what is due and nothing else, and a dry run only says what is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.tenants import save_tenant
from flows.keys import rotate_keys
from kryonix_backup.errors import KeyRefused
from kryonix_backup.sdk.keys import Keys
from kryonix_backup.settings import KeySettings, RootKey, Secret
from kryonix_backup.testing.clock import FixedClock
from tests.flows.conftest import PASSPHRASE, Tenant

ROOT = RootKey(passphrase=Secret(PASSPHRASE))


def _epochs(tenant: Tenant) -> list[int]:
    report = Keys(tenant.settings, ROOT).show()
    return [row["epoch"] for row in report["keys"] if row["purpose"] == "data"]


@pytest.fixture
def aged(tenant: Tenant) -> Tenant:
    """Its keys were made in 2026-11-23, and are due a day later."""
    from kryonix_backup.sdk.client import Client

    settings = replace(tenant.settings, keys=KeySettings(data_days=1, master_days=1))
    Client.onboard(settings, ROOT, clock=FixedClock())
    save_tenant(settings)
    return tenant._replace(settings=settings)


def test_what_is_due_is_rotated_and_what_only_its_owner_can_renew_is_told(aged: Tenant) -> None:
    looked = rotate_keys(aged.id, dry_run=True, return_state=True)
    assert _epochs(aged) == [1]
    done = rotate_keys(aged.id, return_state=True)

    assert looked.message == "due: data, master"
    assert done.message == "rotated: data; due: master"
    assert _epochs(aged) == [1, 2]
    again = rotate_keys(aged.id, return_state=True)
    assert again.message == "due: master"
    assert _epochs(aged) == [1, 2]


def test_the_result_names_keys_and_holds_none(aged: Tenant) -> None:
    report = str(rotate_keys(aged.id))

    assert "decrypt-only" in report
    assert PASSPHRASE not in report
    assert "secret" not in report


def test_another_master_rotates_nothing(aged: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "another one entirely")

    with pytest.raises(KeyRefused):
        rotate_keys(aged.id)
    assert _epochs(aged) == [1]
