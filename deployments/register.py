"""A tenant's own deployments, worked out from its settings and written to the server."""

from __future__ import annotations

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.exceptions import ObjectNotFound

from blocks.saved import saved
from blocks.tenant import TenantBlock
from deployments.schedules import cron
from deployments.specification import VERSION, DeploymentSpec, apply
from deployments.tenants import save_tenant
from kryonix_backup.model import BackupKind, Tier
from kryonix_backup.settings import TenantSettings

KINDS = (BackupKind.FULL, BackupKind.INCREMENTAL)


def tenant_deployments(settings: TenantSettings) -> list[DeploymentSpec]:
    """
    What a tenant has: a full and an incremental backup, on the pool of its tier.

    A backup that comes while its predecessor runs is cancelled: it would only do the same.
    """
    return [_backup(settings, kind) for kind in KINDS]


def register(client: SyncPrefectClient, settings: TenantSettings, *, active: bool | None) -> None:
    """Save the tenant's blocks and deployments; may be run again, and changes only what differs."""
    save_tenant(settings)
    for spec in tenant_deployments(settings):
        apply(client, spec, active=active)


def is_registered(client: SyncPrefectClient, settings: TenantSettings) -> bool:
    """Whether `register` would change nothing: same settings, written by this version."""
    try:
        stored = saved(TenantBlock, settings.id).to_settings()
        there = [
            client.read_deployment_by_name(backup_deployment(settings.id, kind)) for kind in KINDS
        ]
    except (ValueError, ObjectNotFound):
        return False
    same = stored.to_plain() == settings.to_plain()
    return same and all(deployment.version == VERSION for deployment in there)


def backup_deployment(tenant: str, kind: BackupKind) -> str:
    """The name by which Prefect runs that backup."""
    return f"backup-tenant/{tenant}-{kind.value}"


def _backup(settings: TenantSettings, kind: BackupKind) -> DeploymentSpec:
    tier = settings.tier
    return DeploymentSpec(
        entrypoint="flows.backup.backup_tenant",
        name=f"{settings.id}-{kind.value}",
        pool=tier.value,
        queue="high" if tier is Tier.ENTERPRISE else "normal",
        description=f"The {kind.value} backup of {settings.id}.",
        limit=1,
        collision=ConcurrencyLimitStrategy.CANCEL_NEW,
        parameters={"tenant": settings.id, "kind": kind.value},
        tags=("backup", f"tenant:{settings.id}", f"tier:{tier.value}"),
        cron=cron(settings.id, tier, kind),
    )
