from __future__ import annotations

import pytest

from flows.onboard import onboard_tenant
from kryonix_backup.errors import RepositoryExists, RepositoryMissing, SecretMissing
from tasks.onboard import onboarding_step
from tests.flows.conftest import Tenant


def test_a_tenant_is_onboarded_once_and_again(tenant: Tenant) -> None:
    first = onboard_tenant(tenant.id, return_state=True)
    again = onboard_tenant(tenant.id, return_state=True)

    assert first.is_completed()
    assert again.is_completed()
    assert tenant.client().snapshots() == []
    assert f"kryonix flow backup {tenant.id}" in str(first.message)


def test_another_passphrase_does_not_take_a_repository_over(
    onboarded: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "another one entirely")

    with pytest.raises(RepositoryExists):
        onboard_tenant(onboarded.id)


def test_a_worker_without_a_passphrase_says_so(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KRYONIX_PASSPHRASE")

    with pytest.raises(SecretMissing, match=tenant.id):
        onboard_tenant(tenant.id)


def test_a_step_that_takes_too_long_is_taken_back(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(name: str, step: str) -> object:
        done = onboarding_step(name, step)
        if step == "compliance":
            raise TimeoutError("the task has run out of time")
        return done

    monkeypatch.setattr("flows.onboard.onboarding_step", late)
    with pytest.raises(TimeoutError):
        onboard_tenant(tenant.id)

    with pytest.raises(RepositoryMissing):
        tenant.client().snapshots()
