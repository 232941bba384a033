from __future__ import annotations

from prefect.client.schemas.objects import ConcurrencyLimitStrategy

from deployments.register import tenant_deployments
from deployments.schedules import daily_cron
from kryonix_backup.settings import TenantSettings

ACME = TenantSettings.from_plain(
    {
        "id": "acme",
        "tier": "enterprise",
        "regions": [{"name": "primary", "url": "file:///r"}],
        "sources": [{"name": "documents", "url": "files:///d"}],
    }
)
LOGGED = TenantSettings.from_plain(
    {
        **ACME.to_plain(),
        "sources": [{"name": "db", "url": "postgresql://backup@127.0.0.1:5432/acme"}],
    }
)


def test_a_tenant_has_a_full_and_an_incremental_backup_on_its_tiers_pool() -> None:
    full, incremental, _ = tenant_deployments(ACME)

    assert full.full_name() == "backup-tenant/acme-full"
    assert incremental.full_name() == "backup-tenant/acme-incremental"
    assert (full.pool, full.queue) == ("enterprise", "high")
    assert full.parameters == {"tenant": "acme", "kind": "full"}
    assert set(full.tags) == {"backup", "tenant:acme", "tier:enterprise"}


def test_other_tiers_wait_behind_enterprise() -> None:
    plain = {**ACME.to_plain(), "tier": "standard"}

    full, *_ = tenant_deployments(TenantSettings.from_plain(plain))

    assert (full.pool, full.queue) == ("standard", "normal")


def test_a_tenants_keys_are_looked_at_once_a_day() -> None:
    keys = tenant_deployments(ACME)[2]

    assert keys.full_name() == "rotate-keys/acme"
    assert (keys.pool, keys.queue, keys.parameters) == ("enterprise", "low", {"tenant": "acme"})
    assert keys.cron == daily_cron("acme", "keys")


def test_a_backup_that_meets_its_predecessor_is_cancelled() -> None:
    assert {spec.collision for spec in tenant_deployments(ACME)} == {
        ConcurrencyLimitStrategy.CANCEL_NEW
    }
    assert {spec.limit for spec in tenant_deployments(ACME)} == {1}


def test_a_tenant_with_a_log_has_one_more_and_its_pools_following() -> None:
    full, incremental, log, _, follow = tenant_deployments(LOGGED)

    assert [spec.full_name() for spec in (full, incremental, log)] == [
        f"backup-tenant/acme-{kind}" for kind in ("full", "incremental", "log")
    ]
    assert log.cron is None
    assert follow.full_name() == "follow-logs/enterprise"
    assert follow.parameters == {"pool": "enterprise", "every_s": 60.0}
    assert (follow.limit, follow.cron) == (2, "*/4 * * * *")
