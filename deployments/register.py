"""A tenant's own deployments, worked out from its settings and written to the server."""

from __future__ import annotations

import os

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.exceptions import ObjectNotFound

from blocks.saved import saved
from blocks.tenant import TenantBlock
from deployments.pools import keep_tenant_limit
from deployments.schedules import cron, daily_cron, follow_cron, segment_seconds
from deployments.specification import VERSION, DeploymentSpec, apply
from deployments.tenants import save_tenant
from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.limits import Terms, load_tiers
from kryonix_backup.sdk.logs import log_sources
from kryonix_backup.settings import TenantSettings

KEYS_FLOW = "rotate-keys"
_FOLLOW = "flows.follow.follow_logs"
_KINDS = {
    BackupKind.FULL: "reads everything, stores what is new",
    BackupKind.INCREMENTAL: "reads what its sources know to have changed",
    BackupKind.LOG: "fetches the transaction logs once; they are followed anyhow",
}


def tenant_deployments(settings: TenantSettings) -> list[DeploymentSpec]:
    """
    What a tenant has: a full and an incremental backup and a daily look at its keys, on the pool
    of its tier.

    One whose sources keep a log has a third, and needs the run that follows the logs of its pool.
    A backup that comes while its predecessor runs is cancelled: it would only do the same.
    """
    tier = load_tiers(os.environ).of(settings.tier)
    kinds = [BackupKind.FULL, BackupKind.INCREMENTAL]
    logged = bool(log_sources(settings))
    specs = [_backup(settings, tier, kind) for kind in kinds + [BackupKind.LOG] * logged]
    specs.append(keys_deployment(settings))
    if logged:
        specs.append(follow_deployment(tier))
    return specs


def register(client: SyncPrefectClient, settings: TenantSettings, *, active: bool | None) -> None:
    """Save the tenant's blocks and deployments; may be run again, and changes only what differs."""
    tiers = load_tiers(os.environ)
    tiers.check(settings)
    save_tenant(settings)
    keep_tenant_limit(client, settings.id, tiers.limits_of(settings).workers)
    for spec in tenant_deployments(settings):
        # The pool's following is not one tenant's to switch off.
        keep = spec.entrypoint == _FOLLOW and active is False
        apply(client, spec, active=None if keep else active)


def is_registered(client: SyncPrefectClient, settings: TenantSettings) -> bool:
    """Whether `register` would change nothing: same settings, written by this version."""
    try:
        stored = saved(TenantBlock, settings.id).to_settings()
        there = [
            client.read_deployment_by_name(spec.full_name())
            for spec in tenant_deployments(settings)
        ]
    except (ValueError, ObjectNotFound):
        return False
    same = stored.to_plain() == settings.to_plain()
    return same and all(deployment.version == VERSION for deployment in there)


def follow_deployment(tier: Terms) -> DeploymentSpec:
    """
    The run that follows the logs of a pool's tenants.

    It is started as often as a tier's data may be lost, and ends at once where it is not needed.
    Two may run: one hands over to the other.
    """
    return DeploymentSpec(
        entrypoint=_FOLLOW,
        name=tier.name,
        pool=tier.name,
        queue="high",
        description=f"Keep the transaction logs of all tenants of {tier.name}. One run does it and"
        f" is relieved every hour; its table is the artifact follow-{tier.name}.",
        limit=2,
        collision=ConcurrencyLimitStrategy.CANCEL_NEW,
        parameters={"pool": tier.name, "every_s": segment_seconds(tier)},
        tags=("follow", f"tier:{tier.name}"),
        cron=follow_cron(tier),
    )


def keys_deployment(settings: TenantSettings) -> DeploymentSpec:
    """The daily rotation of those of a tenant's keys that are due."""
    return DeploymentSpec(
        entrypoint="flows.keys.rotate_keys",
        name=settings.id,
        pool=settings.tier,
        queue="low",
        description=f"Rotate the keys of {settings.id} that are due; usually nothing is.",
        limit=1,
        collision=ConcurrencyLimitStrategy.CANCEL_NEW,
        parameters={"tenant": settings.id},
        tags=("keys", f"tenant:{settings.id}", f"tier:{settings.tier}"),
        cron=daily_cron(settings.id, "keys"),
    )


def _backup(settings: TenantSettings, tier: Terms, kind: BackupKind) -> DeploymentSpec:
    return DeploymentSpec(
        entrypoint="flows.backup.backup_tenant",
        name=f"{settings.id}-{kind.value}",
        pool=tier.name,
        queue=tier.queue,
        description=f"{kind.value.capitalize()} backup of {settings.id}: {_KINDS[kind]}.",
        limit=1,
        collision=ConcurrencyLimitStrategy.CANCEL_NEW,
        parameters={"tenant": settings.id, "kind": kind.value},
        tags=("backup", f"tenant:{settings.id}", f"tier:{tier.name}"),
        # A log is followed; a run of its own is for who asks for one.
        cron=None if kind is BackupKind.LOG else cron(settings.id, tier, kind),
    )
