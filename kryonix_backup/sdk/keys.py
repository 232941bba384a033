"""
A tenant's keys: shown, rotated, wrapped for another master, escrowed, recovered, destroyed.

All of it happens in every region of the tenant; see `maintenance.key_care` for what a crash leaves.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.crypto.fips import check_fips
from kryonix_backup.crypto.keyring import Keyring
from kryonix_backup.crypto.keys import KeyState, Purpose
from kryonix_backup.crypto.keystore import KeyStore, ManagedKeyStore
from kryonix_backup.crypto.stores.escrow import (
    RsaKeyStore,
    SharesKeyStore,
    rsa_recipient,
    split,
)
from kryonix_backup.durable import write_whole
from kryonix_backup.errors import (
    KeyRefused,
    KryonixError,
    UsageError,
)
from kryonix_backup.events import Listener, quiet
from kryonix_backup.maintenance.destruction import Destruction, destroy_keys
from kryonix_backup.maintenance.key_care import KeyCare
from kryonix_backup.model import TenantId
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sdk.key_report import key_report, write_shares
from kryonix_backup.sdk.limits import Held, schedule_of
from kryonix_backup.sdk.masters import (
    HOW_TO_RENEW,
    has_others,
    is_same,
    made,
    master_of,
    new_master,
    registered_with,
    retire_others,
    second_master,
)
from kryonix_backup.sdk.recovery import RECOVER, begin_recovery
from kryonix_backup.sdk.resealing import ResealCost, costs_of, reseal_all
from kryonix_backup.sdk.residency import check_key_store
from kryonix_backup.sdk.trail import BEGUN, Trail, origin_of
from kryonix_backup.settings import RootKey, Secret, TenantSettings, home_directory
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.tenancy.registry import Registry

__all__ = ["KeyState"]

log = logging.getLogger(__name__)

_SYSTEM = SystemClock()
_MOVE = "keys move"


class Keys:
    """
    The keys of one tenant; every KryonixError that leaves a method names the tenant.

    ``root`` opens them; the environment of ``env`` is only asked for a new one.
    """

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
        with self._named():
            check_fips(settings)
        self._schedule = schedule_of(settings, self._env)
        self._trail = Trail(settings.id, self._env, clock, self._repository)

    @property
    def tenant(self) -> TenantId:
        """The tenant's id."""
        return self.settings.id

    @cached_property
    def _stores(self) -> dict[str, ObjectStore]:
        first = self.settings.regions[0] if self._is_bare else self.settings.primary
        ordered = [first, *(each for each in self.settings.regions if each is not first)]
        held = Held.of(self.settings, self._env, self._clock)
        return {region.name: held.store(region) for region in ordered}

    @property
    def _is_bare(self) -> bool:
        return all(region.name != "primary" for region in self.settings.regions)

    @cached_property
    def _master(self) -> KeyStore:
        return master_of(self.settings, self._root, self._env)

    @cached_property
    def _second(self) -> KeyStore | None:
        return second_master(self.settings, self._env)

    @cached_property
    def _care(self) -> KeyCare:
        return self._care_by(self._master)

    def _care_by(self, opener: KeyStore) -> KeyCare:
        stores, second = [*self._stores.values()], self._second
        return KeyCare(self.tenant, stores, opener, self._clock, second=second)

    def _changing(self, action: str, about: str = "") -> AbstractContextManager[None]:
        """A block that changes keys."""
        self._make_second()
        return self._trail.changing(action, about)

    def _make_second(self) -> None:
        """Make the second master where it has never been used; raises ResidencyViolation."""
        if self._second is not None:
            check_key_store(self.settings, self.settings.keys.second)
            made(self._second)

    # ------------------------------------------------------------------ looking

    def show(self) -> dict[str, Any]:
        """Every key with its state and when it is due; changes nothing."""
        with self._named(), self._trail.reading("keys show") as tell:
            shown = self._plain(self._care.keyring())
            tell("")
            return shown

    # ------------------------------------------------------------------ rotation

    def rotate_due(self) -> dict[str, Any]:
        """
        Complete what was cut short, rotate what is due, and say under ``rotated`` what was.

        A passphrase or key file that is due stays under ``due``: its owner has to renew it.
        """
        with self._named():
            settled = self._care.is_settled() and not has_others(self._master, self._care.keyring())
        report, rotated = self.show() if settled else self.settle(), []
        if "master" in report["due"] and isinstance(self._master, ManagedKeyStore):
            report = self.rotate_master()
            rotated.append("master")
        if "data" in report["due"]:
            report = self.rotate_data()
            rotated.append("data")
        if "archive" in report["due"]:
            report = self.rotate_archive()
            rotated.append("archive")
        return {**report, "rotated": rotated}

    def rotate_data(self) -> dict[str, Any]:
        """Start an epoch of data keys; what older ones sealed stays as it is, and opens."""
        with self._named(), self._changing("keys rotate-data"):
            return self._plain(self._care.rotate(Purpose.DATA))

    def prepare_data(self) -> dict[str, Any]:
        """Make the data key of the next epoch, so that it is in every region before it is used."""
        with self._named(), self._changing("keys rotate-data", "prepared"):
            return self._plain(self._care.prepare(Purpose.DATA))

    def rotate_archive(self) -> dict[str, Any]:
        """Start an epoch of archive keys; envelopes of older ones open as before."""
        with self._named(), self._changing("keys rotate-archive"):
            return self._plain(self._care.rotate(Purpose.ARCHIVE))

    def rotate_master(self) -> dict[str, Any]:
        """
        Wrap the keys for the next version of the master in its HSM or KMS, and destroy the others.

        A passphrase or key file cannot renew itself: raises UsageError, see `move`.
        """
        with self._named():
            if not isinstance(self._master, ManagedKeyStore):
                raise UsageError(f"a {self._master.kind} is renewed by its owner", HOW_TO_RENEW)
            with self._changing("keys rotate-master"):
                self._master.renew()
                keyring = self._care.rotate_master(self._master)
                retire_others(self._master, keyring)
            return self._plain(keyring)

    def move(self, store_url: str | None = None) -> dict[str, Any]:
        """
        Wrap the keys for another master: an HSM or KMS, or the new passphrase or key file.

        ``KRYONIX_NEW_PASSPHRASE`` and so on say which; no data is rewritten. The old master opens
        nothing any more; one in an HSM or KMS is destroyed. Run again after a failure it goes on.
        """
        with self._named():
            registered_with(self.tenant, store_url, self._env)
            new = new_master(self.settings, store_url, self._env)
            # Of a move that was cut short the old master opens nothing any more.
            with suppress(KeyRefused):
                self._trail.record(_MOVE, BEGUN, new.kind)
            made(new)
            self._make_second()
            keyring = self._care.rotate_master(new)
            if isinstance(self._master, ManagedKeyStore) and not is_same(self._master, new):
                self._master.destroy()
            self._remember(store_url)  # last: what runs again until then still knows the old one
            self._master = new
            self._trail.record(_MOVE, about=new.kind)
            return self._plain(keyring)

    def settle(self) -> dict[str, Any]:
        """Complete a change of keys that was cut short, in every region."""
        with self._named():
            with self._changing("keys settle"):
                keyring = self._care.settle()
                retire_others(self._master, keyring)
            return self._plain(keyring)

    # ------------------------------------------------------------------ states

    def set_state(self, key: str, state: KeyState) -> dict[str, Any]:
        """Change what may be done with a data key; raises KeyUnusable."""
        with self._named():
            found = self._care.key_id(key)
            with self._changing("keys state", f"{found} {state.value}"):
                return self._plain(self._care.set_state(found, state))

    def reseal_cost(self, key: str) -> list[ResealCost]:
        """What sealing anew costs, for every region; reads the first bytes of every object."""
        with self._named():
            return costs_of(self._repositories(), self._care.key_id(key))

    def reseal(self, key: str, listener: Listener = quiet) -> dict[str, Any]:
        """
        Seal anew, by the key that seals now, all that a compromised key sealed; then forget it.

        Run again after a failure it goes on. Raises KeyUnusable where the key is not compromised.
        """
        with self._named():
            found = self._care.compromised(key)
            with self._changing("keys reseal", found):
                self._care.settle()  # a region that has not heard of it would seal by it again
                reseal_all(self._repositories, found, listener)
                return self._plain(self._care.destroy_data_key(found))

    def _repository(self, master: KeyStore | None = None) -> Repository:
        """The tenant's repository in its primary region, as the newest keyring opens it."""
        primary = next(iter(self._stores.values()))
        return Repository.open(primary, self.tenant, master or self._master)

    def _repositories(self) -> Iterator[tuple[str, Repository]]:
        for name, store in self._stores.items():
            yield name, Repository.open(store, self.tenant, self._master)

    # ------------------------------------------------------------------ escrow

    def escrow_shares(self, threshold: int, count: int, into: Path) -> list[Path]:
        """
        Split an escrow of the keys: so many of so many shares open them, for recovery alone.

        Each share is a file of its own in a new directory, readable by its owner; they are kept
        nowhere else. An escrow from before opens nothing any more. Raises ConfigError.
        """
        with self._named():
            recipient, shares, sender = split(threshold, count)
            with self._changing("keys escrow", f"{threshold} of {count} shares"):
                paths = write_shares(into, self.tenant, shares, threshold)
                try:
                    self._care.set_escrow(recipient, sender)
                except KryonixError as error:
                    error.hint += f" Destroy the files in {into}, which may open nothing."
                    raise
            return paths

    def escrow_rsa(self, public_pem: bytes) -> dict[str, Any]:
        """Let whoever has the private half of this RSA key recover the keys; raises ConfigError."""
        with self._named():
            recipient = rsa_recipient(public_pem)
            with self._changing("keys escrow", "RSA"):
                return self._plain(self._care.set_escrow(recipient))

    def remove_escrow(self) -> dict[str, Any]:
        """Let no escrow recover the keys any more."""
        with self._named(), self._changing("keys escrow", "removed"):
            return self._plain(self._care.set_escrow(None))

    def recover(
        self, shares: Sequence[Secret] = (), private_pem: Secret | None = None
    ) -> dict[str, Any]:
        """
        Wrap the keys for this root instead of a master that is lost.

        What opens them once more are the shares or the private key of an escrow, or, with neither,
        the tenant's second master. Raises KeyRefused where they do not, UsageError without any.
        """
        with self._named():
            url = self.settings.keys.store
            check_key_store(self.settings, url)
            opener = self._opener(shares, private_pem)
            registered_with(self.tenant, url, self._env)
            if begin_recovery(self._trail, partial(self._repository, opener), opener.kind):
                made(self._master)
                if opener is not self._second:
                    self._make_second()
            keyring = self._care_by(opener).rotate_master(self._master)
            self._remember(url)
            self._trail.record(RECOVER, about=opener.kind)
            return self._plain(keyring)

    def _opener(self, shares: Sequence[Secret], private_pem: Secret | None) -> KeyStore:
        if private_pem is not None:
            password = self._env.get("KRYONIX_ESCROW_PASSWORD")
            return RsaKeyStore(private_pem, Secret(password) if password else None)
        if shares:
            return SharesKeyStore(shares)
        if self._second is None:
            raise UsageError("this tenant has no second master: give shares, or a private key")
        return self._second

    # ------------------------------------------------------------------ the end

    def destroy(self) -> Destruction:
        """Destroy every key in every region, so that nothing of the tenant opens any more."""
        with self._named():
            masters = {self._master.kind: self._master}
            if self._second is not None:
                masters["second"] = self._second
            try:
                self._trail.record("keys destroy", BEGUN)
            except KryonixError as error:  # a part is gone, or the region: no reason to stop
                log.warning("the destruction is not in the audit chain: %s", error.message)
            by = origin_of(self._env).actor
            record = destroy_keys(self.tenant, self._stores, masters, by, self._clock)
            path = home_directory(self._env) / "destroyed" / f"{self.tenant}.json"
            try:
                write_whole(path, json.dumps(record.to_plain(), indent=1).encode())
            except OSError as error:
                log.warning("the record of the destruction is not in %s: %s", path, error.strerror)
            return record

    # ------------------------------------------------------------------ inside

    def _remember(self, store_url: str | None) -> None:
        """Write into the registry where the master is now, if the tenant is registered here."""
        keys = replace(self.settings.keys, store=store_url)
        self.settings = replace(self.settings, keys=keys)
        known = registered_with(self.tenant, store_url, self._env)
        if known is not None:
            Registry.at(self._env).replace(known)

    def _plain(self, keyring: Keyring) -> dict[str, Any]:
        return key_report(
            self.tenant, keyring, self._master.kind, self._schedule, self._clock.now()
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except KryonixError as error:
            error.tenant = error.tenant or self.tenant
            raise
