"""What the catalog knows of a tenant, and how it learns it again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kryonix_backup.catalog.record import RunRecord, SnapshotRecord, record_of_backup
from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import ConfigError
from kryonix_backup.model import tenant_id
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.residency import reached_as
from kryonix_backup.sdk.tenants import connect
from kryonix_backup.sdk.wiring import open_catalog
from kryonix_backup.settings import PRIMARY, RegionSettings, TenantSettings
from kryonix_backup.tenancy.registry import Registry

__all__ = ["Rebuilt", "RunRecord", "read_history", "rebuild"]

_SYSTEM = SystemClock()


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A tenant that was brought back from its repository, and how many snapshots with it."""

    settings: TenantSettings
    snapshots: int

    def to_plain(self) -> dict[str, Any]:
        """The outcome as the command prints it with --json."""
        plain = {"tenant": self.settings.id, "snapshots": self.snapshots}
        return {**plain, "settings": self.settings.to_plain()}


def read_history(
    tenant: str, limit: int = 50, env: Mapping[str, str] | None = None
) -> list[RunRecord]:
    """A tenant's runs, newest first; an unknown tenant has none."""
    checked = tenant_id(tenant)
    with open_catalog(os.environ if env is None else env) as catalog:
        return catalog.runs(checked, limit)


def rebuild(
    tenant: str,
    regions: Sequence[RegionSettings] = (),
    *,
    from_region: str | None = None,
    env: Mapping[str, str] | None = None,
    clock: Clock = _SYSTEM,
) -> Rebuilt:
    """
    Fill the catalog from the tenant's repository, and register the tenant as it was.

    With ``regions`` the registered settings are replaced by those of the newest snapshot; a tenant
    that is registered and named alone keeps its settings. Raises ConfigError where the repository
    has no snapshot to take settings from.
    """
    env = os.environ if env is None else env
    client = connect(tenant, regions=regions, from_region=from_region, env=env, clock=clock)
    snapshots = client.snapshots()
    if regions:
        if not snapshots:
            raise _no_settings(client.settings)
        Registry.at(env).replace(_as_it_was(client))
    with open_catalog(env) as catalog:
        catalog.replace(
            client.tenant,
            [SnapshotRecord.of(snapshot) for snapshot in snapshots],
            [record_of_backup(snapshot) for snapshot in snapshots],
        )
    return Rebuilt(client.settings, len(snapshots))


def _no_settings(settings: TenantSettings) -> ConfigError:
    error = ConfigError(
        f"the repository at {settings.regions[0].url} has no snapshot, so nothing says which"
        " sources the tenant has",
        "Register the tenant with 'kryonix tenant add'; its repository is taken up as it is.",
    )
    error.tenant = settings.id
    return error


def _as_it_was(client: Client) -> TenantSettings:
    """The client's settings, with the networks of its regions as the newest snapshot has them."""
    settings, newest = client.settings, client.newest_settings()
    settings.region(PRIMARY)  # or ConfigError: a registered tenant needs one
    regions = reached_as(newest or settings, settings.regions)
    return replace(settings, regions=tuple(regions))
