"""Making a tenant's regions its own alone, proving it, and taking that back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import ConfigError, KryonixError
from kryonix_backup.model import TenantId
from kryonix_backup.repository import layout
from kryonix_backup.settings import RegionSettings, Secret, TenantSettings
from kryonix_backup.storage.bucket_isolation import BucketIsolation
from kryonix_backup.storage.directory_isolation import DirectoryIsolation
from kryonix_backup.storage.isolation import Isolation
from kryonix_backup.storage.location import Directory, parse_location
from kryonix_backup.storage.registry import admin_credentials, kept_credentials, open_store
from kryonix_backup.storage.residency import Residency, check_region

__all__ = ["Isolation", "isolate_tenant", "kept_pair", "remove_unused", "undo_isolation"]

_SYSTEM = SystemClock()
# What a repository holds that was made and never used.
_EMPTY = (layout.FORMAT, layout.KEYS, layout.AUDIT)


def isolate_tenant(
    settings: TenantSettings,
    *,
    region: str | None = None,
    rotate: bool = False,
    env: Mapping[str, str] | None = None,
    clock: Clock = _SYSTEM,
) -> list[Isolation]:
    """
    Make each of the tenant's regions, or one, the tenant's alone; what was made and proved.

    Directories always; buckets where the operator's credentials are set
    (``KRYONIX_{REGION}_ADMIN_ACCESS_KEY_ID`` and so on), and the others are left as they are. May
    be run again. What fails leaves nothing of this run. Raises ResidencyViolation, ConfigError,
    NotIsolated and what stores raise.
    """
    env = os.environ if env is None else env
    chosen = [settings.region(region)] if region is not None else settings.regions
    done: list[Isolation] = []
    try:
        for each in chosen:
            check_region(each, Residency.of(settings))
            way = _way(settings, each, env)
            if isinstance(way, BucketIsolation):
                done.append(way.isolate(clock, rotate=rotate))
            elif way is not None:
                done.append(way.isolate())
    except BaseException:
        undo_isolation(settings, done, env=env)
        raise
    if rotate and not any(each.kind == "bucket" for each in done):
        raise ConfigError(
            f"tenant {settings.id} has no key pair that could be rotated",
            "Set KRYONIX_{REGION}_ADMIN_ACCESS_KEY_ID and KRYONIX_{REGION}_ADMIN_SECRET_ACCESS_KEY"
            " for a region in a bucket.",
        )
    return done


def undo_isolation(
    settings: TenantSettings, done: Sequence[Isolation], *, env: Mapping[str, str] | None = None
) -> list[str]:
    """
    Unmake what `isolate_tenant` has made, newest first; what could not be unmade.

    A bucket or directory that it made goes with the unused repository in it, and stays where
    anything else is in it.
    """
    env = os.environ if env is None else env
    left: list[str] = []
    for each in reversed(done):
        try:
            region = settings.region(each.region)
            if {"bucket", "directory"} & set(each.made):
                remove_unused(settings, region, env)
            way = _way(settings, region, env)
            if way is not None:
                way.undo(each.made)
        except KryonixError as error:
            left.append(error.message)
    return left


def remove_unused(settings: TenantSettings, region: RegionSettings, env: Mapping[str, str]) -> None:
    """Remove a repository that was made and never used; one that was used is left whole."""
    store = open_store(region, env, Residency.of(settings))
    names = [info.name for info in store.list("")]
    if all(name.startswith(_EMPTY) for name in names):
        for name in names:
            store.delete(name)
        if isinstance(place := parse_location(region.url), Directory):
            for folder in ("tmp", layout.KEYS, layout.AUDIT):
                for path, _, _ in os.walk(place.path / folder, topdown=False):
                    with suppress(OSError):
                        os.rmdir(path)


def _way(
    settings: TenantSettings, region: RegionSettings, env: Mapping[str, str]
) -> BucketIsolation | DirectoryIsolation | None:
    place = parse_location(region.url)
    if isinstance(place, Directory):
        return DirectoryIsolation(settings.id, region, place, system_user=settings.system_user)
    operator = admin_credentials(region, env)
    if operator is None:
        return None
    return BucketIsolation(settings.id, region, place, operator, env)


def kept_pair(
    tenant: TenantId, region: RegionSettings, env: Mapping[str, str]
) -> tuple[str, Secret] | None:
    """The key pair that this machine keeps for the tenant's bucket, for who hands it on."""
    kept = kept_credentials(region, env, tenant)
    return None if kept is None else (kept.access_key_id, kept.secret_access_key)
