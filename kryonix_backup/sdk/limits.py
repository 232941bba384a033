"""What a tenant may take of this machine, and the means by which that holds at every door."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

from kryonix_backup.clock import Clock
from kryonix_backup.limits import Limits
from kryonix_backup.maintenance.key_care import Schedule
from kryonix_backup.model import TenantId, Tier
from kryonix_backup.settings import RegionSettings, TenantSettings, home_directory
from kryonix_backup.storage.bandwidth import Bandwidth
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import Residency
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.storage.throttling import Throttle
from kryonix_backup.tenancy.cores import on_cores
from kryonix_backup.tenancy.memory import packs_at_once, share_of_memory
from kryonix_backup.tenancy.tiers import Terms, Tiers, load_tiers, read_tiers

__all__ = [
    "Held",
    "Limits",
    "Terms",
    "Tiers",
    "default_tier",
    "load_tiers",
    "promised",
    "read_tiers",
    "schedule_of",
]

log = logging.getLogger(__name__)


class Held:
    """One tenant's limits, held for whatever it runs on this machine."""

    def __init__(
        self, tenant: TenantId, limits: Limits, residency: Residency, env: Mapping[str, str],
        clock: Clock,
    ) -> None:  # fmt: skip
        self.limits = limits
        self._residency = residency
        self._tenant = tenant
        self._env = env
        self._clock = clock
        self._folder = home_directory(env) / "limits" / tenant

    @classmethod
    def of(cls, settings: TenantSettings, env: Mapping[str, str], clock: Clock) -> Self:
        """
        The limits of a tenant's tier, and its own where they are below.

        A tier that this machine does not know stops no backup and no restore: a warning says so,
        and the default tier's limits hold. Raises ConfigError for a file of tiers that is wrong.
        """
        tiers = load_tiers(env)
        if settings.tier not in tiers:
            log.warning(
                "tier %s of tenant %s is not in %s; the limits of tier %s hold",
                settings.tier, settings.id, tiers.file, tiers.default,
            )  # fmt: skip
            settings = replace(settings, tier=tiers.default)
        limits = tiers.limits_of(settings)
        return cls(settings.id, limits, Residency.of(settings), env, clock)

    def store(self, region: RegionSettings) -> ObjectStore:
        """The store at a region's address, whose bytes count; raises what `open_store` raises."""
        rate = self.limits.bandwidth_bits_s
        bandwidth = Bandwidth(self._folder / "bandwidth", rate, self._clock)
        throttle = Throttle(bandwidth, packs_at_once(self.limits.memory_bytes))
        return open_store(region, self._env, self._residency, clock=self._clock, throttle=throttle)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work on the tenant's cores, in its memory; waits where other runs have all of that."""
        with (
            share_of_memory(self._folder, self.limits.memory_bytes),
            on_cores(self._tenant, self.limits.cores),
        ):
            yield


def default_tier(env: Mapping[str, str]) -> Tier:
    """The tier of a tenant of whom nothing else is known."""
    return load_tiers(env).default


def promised(settings: TenantSettings, env: Mapping[str, str]) -> dict[str, Any]:
    """What a tenant's tier promises, with the limits that hold for it; raises ConfigError."""
    tiers = load_tiers(env)
    return replace(tiers.of(settings.tier), limits=tiers.limits_of(settings)).to_plain()


def schedule_of(settings: TenantSettings, env: Mapping[str, str]) -> Schedule:
    """When a tenant's keys are due: after as many days as it says itself, else its tier."""
    tiers = load_tiers(env)
    terms = tiers.of(settings.tier if settings.tier in tiers else tiers.default).key_rotation
    own = settings.keys
    return Schedule(
        own.data_days or terms.data_days,
        own.master_days or terms.master_days,
        own.archive_days or terms.archive_days,
    )
