"""
Taking a tenant on, in six steps; each may be run again, and all of them can be taken back.

A journal under ``$KRYONIX_HOME/onboarding`` says what is done and what was made: a run that was cut
short is completed by the next one, and one that fails leaves nothing that it has made. After the
last step the journal stays, as the record of what the tenant was given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.crypto.fips import check_fips
from kryonix_backup.crypto.keystore import ManagedKeyStore
from kryonix_backup.crypto.stores.location import parse_key_store
from kryonix_backup.crypto.stores.registry import open_key_store, probe_key_store
from kryonix_backup.durable import write_whole
from kryonix_backup.errors import ConfigError, KryonixError, RepositoryMissing, SecretMissing
from kryonix_backup.model import TenantId
from kryonix_backup.repository.keyrings import described_at
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.isolation import (
    Isolation,
    isolate_tenant,
    remove_unused,
    undo_isolation,
)
from kryonix_backup.sdk.limits import Held, load_tiers, schedule_of
from kryonix_backup.sdk.masters import check_id, master_of
from kryonix_backup.sdk.residency import check_key_store
from kryonix_backup.sdk.wiring import source_of
from kryonix_backup.settings import KeySettings, RootKey, TenantSettings, home_directory
from kryonix_backup.storage.residency import Residency, check_region
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.tenancy.registry import Registry

_SYSTEM = SystemClock()
_COMPLETE = "complete"

Facts = dict[str, Any]


class Step(StrEnum):
    """The steps, in their order."""

    ISOLATION = "isolation"
    ENCRYPTION = "encryption"
    STORAGE = "storage"
    COMPLIANCE = "compliance"
    OPTIMISATION = "optimisation"
    MONITORING = "monitoring"


class Onboarding:
    """One tenant being taken on; every KryonixError that leaves a method names the tenant."""

    def __init__(
        self,
        settings: TenantSettings,
        root: RootKey,
        *,
        env: Mapping[str, str] | None = None,
        clock: Clock = _SYSTEM,
    ) -> None:
        self.settings = settings
        self._root = root
        self._env = os.environ if env is None else env
        self._clock = clock
        self._path = home_directory(self._env) / "onboarding" / f"{settings.id}.json"
        self._ways: dict[Step, Callable[[], Facts]] = {
            Step.ISOLATION: self._isolate,
            Step.ENCRYPTION: self._encrypt,
            Step.STORAGE: self._store,
            Step.COMPLIANCE: self._comply,
            Step.OPTIMISATION: self._optimise,
            Step.MONITORING: self._monitor,
        }

    def run(self, step: Step) -> Facts:
        """Do one step, or do it again, and give what it came to; no secret is in it."""
        try:
            facts = self._ways[step]()
            journal = self._journal()
            journal["steps"][step.value] = {"time": self._clock.now().isoformat(), **facts}
            self._write(journal)
        except KryonixError as error:
            error.tenant = error.tenant or self.settings.id
            raise
        return facts

    def finish(self) -> Facts:
        """Say that every step is done; the record of what the tenant was given."""
        journal = self._journal() | {"status": _COMPLETE}
        self._write(journal)
        return journal

    def undo(self) -> list[str]:
        """
        Take back, newest first, what this onboarding has made; what could not be taken back.

        What was there before stays, and so does a repository that was used meanwhile, with the
        master key that opens it.
        """
        made, left = self._journal()["made"], []
        for region in made["repositories"]:
            try:
                self._require_address(region, made.get("addresses", {}))
                remove_unused(self.settings, self.settings.region(region), self._env)
            except KryonixError as error:
                left.append(error.message)
        done = [Isolation.from_plain(row) for row in made["isolation"]]
        left += undo_isolation(self.settings, done, env=self._env)
        if made["master"]:
            left += self._undo_master(unknown=bool(left))
        with suppress(FileNotFoundError):
            self._path.unlink()
        return left

    # ------------------------------------------------------------------ the steps

    def _isolate(self) -> Facts:
        done = isolate_tenant(self.settings, env=self._env, clock=self._clock)
        journal = self._journal()
        journal["made"]["isolation"] += [each.to_plain() for each in done if each.made]
        self._write(journal)
        return {"regions": [each.to_plain() for each in done]}

    def _encrypt(self) -> Facts:
        check_id(self.settings.id)
        check_fips(self.settings)
        root = self._root.store
        for url in (root.url if root else None, self.settings.keys.second):
            check_key_store(self.settings, url)
        store = master_of(self.settings, self._root, self._env)
        if isinstance(store, ManagedKeyStore) and not store.versions():
            journal = self._journal()
            journal["made"]["master"] = True  # before it is made: what is not there is not missed
            self._write(journal)
            store.renew()
        proved = probe_key_store(self._root, self.settings.id)
        where = {"address": store.address} if isinstance(store, ManagedKeyStore) else {}
        return {"store": store.kind, **where, "proved": proved}

    def _store(self) -> Facts:
        held = Held.of(self.settings, self._env, self._clock)
        missing = [
            region.name for region in self.settings.regions if _is_missing(held.store(region))
        ]
        journal = self._journal()
        known = journal["made"]["repositories"]
        journal["made"]["repositories"] = [*known, *sorted(set(missing) - set(known))]
        here = {each: self.settings.region(each).url for each in missing}
        journal["made"]["addresses"] = {**here, **journal["made"].get("addresses", {})}
        self._write(journal)
        client = Client.onboard(self.settings, self._root, env=self._env, clock=self._clock)
        return {
            "repository": client.repository.id,
            "regions": [region.name for region in self.settings.regions],
        }

    def _comply(self) -> Facts:
        for region in self.settings.regions:
            check_region(region, Residency.of(self.settings))
        terms = load_tiers(self._env).of(self.settings.tier)
        return {
            "residency": list(self.settings.residency),
            "transfers": [each._asdict() for each in self.settings.transfers],
            "keep": terms.to_plain()["keep"],
            "archive_years": terms.archive_years,
            "key_rotation": asdict(schedule_of(self.settings, self._env)),
        }

    def _optimise(self) -> Facts:
        limits = load_tiers(self._env).limits_of(self.settings)
        return {
            "limits": limits.to_plain(),
            "compression": {each.name: each.compression for each in self.settings.sources},
        }

    def _monitor(self) -> Facts:
        terms = load_tiers(self._env).of(self.settings.tier)
        found = {}
        for source in self.settings.sources:
            failed = [each for each in source_of(source).check() if not each.passed]
            found[source.name] = [f"{each.what}: {each.evidence}" for each in failed]
        return {
            "rpo_s": terms.rpo_s,
            "rto_s": terms.rto_s,
            "availability_percent": terms.availability_percent,
            "findings": found,
        }

    # ------------------------------------------------------------------ the journal

    def _require_address(self, region: str, addresses: Mapping[str, str]) -> None:
        """Raise ConfigError where a region was somewhere else when its repository was made."""
        url = self.settings.region(region).url
        if addresses.get(region, url) != url:
            raise ConfigError(
                f"the repository that was made for region {region} at {addresses[region]} stays"
            )

    def _undo_master(self, *, unknown: bool) -> list[str]:
        """Destroy the master that was made, unless it opens anything; what could not be done."""
        try:
            store = open_key_store(self._root, self.settings.id)
            if not isinstance(store, ManagedKeyStore):
                return []
            why = self._why_kept(store, unknown=unknown)
            if why is None:
                store.destroy()
        except KryonixError as error:
            return [error.message]
        return [] if why is None else [f"the master key {store.address} stays: {why}"]

    def _why_kept(self, store: ManagedKeyStore, *, unknown: bool) -> str | None:
        """
        Why a master may open what is in use; None where it opens nothing that is known.

        Who wrapped a repository's keys is not asked: whoever may write there could answer.
        """
        if unknown:
            return "not all that it may open could be removed"
        held = Held.of(self.settings, self._env, self._clock)
        if not all(_is_missing(held.store(each)) for each in self.settings.regions):
            return "there is a repository in its regions, which it may open"
        if len(store.versions()) > 1:
            return "it has versions that another run has made"
        if other := self._other_tenant(store.address):
            return f"it may be that of tenant {other} too"
        return None

    def _other_tenant(self, address: str) -> str | None:
        """Another tenant of this machine, registered or not, with the same master."""
        registry = Registry.at(self._env)
        for each in registry.ids():
            keys = registry.load(each).keys
            if each != self.settings.id and self._may_have(address, each, keys):
                return each
        for path in self._path.parent.glob("*.json"):
            steps = self._read(path).get("steps", {})
            if path != self._path and steps.get("encryption", {}).get("address") == address:
                return path.stem
        return None

    def _may_have(self, address: str, tenant: TenantId, keys: KeySettings) -> bool:
        urls = [url for url in (keys.store, keys.second) if url]
        if keys.store is None:
            try:
                root = RootKey.from_environment(self._env, tenant)
            except SecretMissing:  # it has a key, and this environment does not say where
                return True
            urls += [root.store.url] if root.store else []
        return any(parse_key_store(url, tenant).address == address for url in urls)

    def _journal(self) -> Facts:
        """What is done so far; anew after an onboarding that came to its end."""
        found = self._read(self._path)
        if found.get("status") != _COMPLETE:
            return found
        return {
            "tenant": self.settings.id,
            "tier": self.settings.tier,
            "status": "begun",
            "begun": self._clock.now().isoformat(),
            "steps": {},
            "made": {"isolation": [], "master": False, "repositories": []},
        }

    def _read(self, path: Path) -> Facts:
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {"status": _COMPLETE}
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the journal of an onboarding cannot be read: {path}",
                "Move the file away, and run the same command again.",
            ) from error
        return dict(found)

    def _write(self, journal: Facts) -> None:
        try:
            write_whole(self._path, json.dumps(journal, indent=1).encode())
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be written: {error.strerror}",
                "Set KRYONIX_HOME to a directory that this user may write to.",
            ) from error


def _is_missing(store: ObjectStore) -> bool:
    try:
        described_at(store)
    except RepositoryMissing:
        return True
    return False
