"""Taking tenants on, and finding the one that a command names."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import KryonixError, TenantExists, UsageError
from kryonix_backup.model import TenantId, tenant_id
from kryonix_backup.sdk.apart import check_apart
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.isolation import Isolation
from kryonix_backup.sdk.keys import Keys
from kryonix_backup.sdk.limits import default_tier, load_tiers
from kryonix_backup.sdk.lock import onboarding_lock
from kryonix_backup.sdk.onboarding import Onboarding, Step
from kryonix_backup.sdk.residency import reached_as, taken_over
from kryonix_backup.sdk.wiring import source_of
from kryonix_backup.settings import (
    PRIMARY,
    RegionSettings,
    RootKey,
    TenantSettings,
    home_directory,
)
from kryonix_backup.tenancy.registry import Registry

log = logging.getLogger(__name__)

_SYSTEM = SystemClock()


class Added(NamedTuple):
    """
    A tenant that was taken on: its client, what keeps its regions from others, and the record of
    all six steps.
    """

    client: Client
    isolation: list[Isolation]
    record: dict[str, Any]


def add_tenant(
    settings: TenantSettings, *, env: Mapping[str, str] | None = None, clock: Clock = _SYSTEM
) -> Added:
    """
    Make the tenant's regions its own alone, its repositories in them, and register it.

    Registering is the last step. What fails takes back what this run has made, and leaves at most
    empty repositories where there was a bucket or directory before, which the next try takes up.
    Raises TenantExists, AlreadyRunning, InvalidUrl, ConfigError, ResidencyViolation, NotIsolated,
    SecretMissing and what `Client.onboard` raises.
    """
    env = os.environ if env is None else env
    with onboarding_lock(home_directory(env), settings.id):
        return _added(settings, env, clock)


def _added(settings: TenantSettings, env: Mapping[str, str], clock: Clock) -> Added:
    registry = Registry.at(env)
    if settings.id in registry.ids():
        raise TenantExists(f"tenant {settings.id} is registered already")
    registry.check(settings)
    load_tiers(env).check(settings)
    for source in settings.sources:
        source_of(source)
        for region in settings.regions:
            check_apart(source, region)
    root = RootKey.from_environment(env, settings.id, settings.keys.store)
    onboarding = Onboarding(settings, root, env=env, clock=clock)
    try:
        done = {step: onboarding.run(step) for step in Step}
        registry.add(settings)
    except BaseException:
        for left in onboarding.undo():
            log.warning("not taken back: %s", left)
        raise
    isolation = [Isolation.from_plain(row) for row in done[Step.ISOLATION]["regions"]]
    client = Client(settings, root, env=env, clock=clock)
    return Added(client, isolation, onboarding.finish())


def list_tenants(env: Mapping[str, str] | None = None) -> list[TenantSettings]:
    """Every registered tenant, in order of id."""
    registry = Registry.at(os.environ if env is None else env)
    return [registry.load(tenant) for tenant in registry.ids()]


def tenant_ids(env: Mapping[str, str] | None = None) -> list[TenantId]:
    """The ids of every registered tenant, in order."""
    return Registry.at(os.environ if env is None else env).ids()


def show_tenant(tenant: str, env: Mapping[str, str] | None = None) -> TenantSettings:
    """The settings of a registered tenant; raises TenantUnknown."""
    return Registry.at(os.environ if env is None else env).load(tenant)


def remove_tenant(tenant: str, env: Mapping[str, str] | None = None) -> TenantSettings:
    """
    Forget a tenant, and give back what was known of it; its repositories stay as they are.

    It is recorded where its repository can be opened, and forgotten in any case. Raises
    TenantUnknown.
    """
    env = os.environ if env is None else env
    registry = Registry.at(env)
    settings = registry.load(tenant)
    try:
        root = RootKey.from_environment(env, settings.id, settings.keys.store)
        Client(settings, root, env=env).record_removal()
    except KryonixError as error:
        log.warning("the removal of %s is not in the audit chain: %s", tenant, error.message)
    registry.remove(tenant)
    return settings


def tenant_keys(
    tenant: str,
    *,
    regions: Sequence[RegionSettings] = (),
    env: Mapping[str, str] | None = None,
    clock: Clock = _SYSTEM,
) -> Keys:
    """
    The keys of a registered tenant, or of any whose ``regions`` are given, the primary first.

    Raises InvalidName, TenantUnknown, UsageError and SecretMissing.
    """
    env = os.environ if env is None else env
    settings = _settings_of(tenant, regions, env)
    root = RootKey.from_environment(env, settings.id, settings.keys.store)
    return Keys(settings, root, env=env, clock=clock)


def lost_keys(
    tenant: str,
    store_url: str | None,
    *,
    regions: Sequence[RegionSettings] = (),
    env: Mapping[str, str] | None = None,
    clock: Clock = _SYSTEM,
) -> Keys:
    """
    The keys of a tenant whose master is lost, to be recovered for a new one.

    That is the HSM or KMS at ``store_url``, or what the environment names; nothing is asked of the
    old one. Raises as `tenant_keys` does.
    """
    env = os.environ if env is None else env
    settings = _settings_of(tenant, regions, env)
    settings = replace(settings, keys=replace(settings.keys, store=store_url))
    root = RootKey.from_environment(env, settings.id, store_url)
    return Keys(settings, root, env=env, clock=clock)


def _settings_of(
    tenant: str, regions: Sequence[RegionSettings], env: Mapping[str, str]
) -> TenantSettings:
    """Those of a registered tenant, or of one of whom only the regions are known."""
    checked, registry = tenant_id(tenant), Registry.at(env)
    if not regions:
        return registry.load(checked)
    _check_named_once(regions)
    if checked in registry.ids():  # its residency and its second master hold here too
        there = registry.load(checked)
        known = taken_over(there, reached_as(there, regions))
        names = [region.name for region in regions]
        return replace(known, regions=tuple(known.region(name) for name in names))
    return TenantSettings(checked, default_tier(env), tuple(regions), ())


def _check_named_once(regions: Sequence[RegionSettings]) -> None:
    names = [region.name for region in regions]
    if len(set(names)) < len(names):
        raise UsageError(f"a region is named twice: {', '.join(names)}")


def connect(
    tenant: str,
    *,
    regions: Sequence[RegionSettings] = (),
    from_region: str | None = None,
    env: Mapping[str, str] | None = None,
    clock: Clock = _SYSTEM,
) -> Client:
    """
    The client of a registered tenant, or of any whose ``regions`` are given.

    ``from_region`` names the region to read from. Raises InvalidName, TenantUnknown and
    SecretMissing.
    """
    env = os.environ if env is None else env
    checked = tenant_id(tenant)
    if regions:
        _check_named_once(regions)
        names = [region.name for region in regions]
        root = RootKey.from_environment(env, checked)
        if checked in (registry := Registry.at(env)).ids():  # its residency holds here too
            there = registry.load(checked)
            known = taken_over(there, reached_as(there, regions))
            regions = [known.region(name) for name in names]
        return Client.from_regions(checked, regions, root, env=env, clock=clock, region=from_region)
    settings = Registry.at(env).load(checked)
    root = RootKey.from_environment(env, checked, settings.keys.store)
    return Client(settings, root, env=env, clock=clock, region=from_region or PRIMARY)
