"""
Destroying a tenant's keys, so that nothing of its opens in any region, and the proof of it.

The record of it is plain, because no key is left to open it: `destroyed.json` beside what stays,
and under ``$KRYONIX_HOME``. It says for every region what was removed, and what became of an
attempt to open the repository there with the very master key that opened it before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from kryonix_backup.clock import Clock
from kryonix_backup.crypto.keystore import KeyStore, ManagedKeyStore
from kryonix_backup.errors import KryonixError
from kryonix_backup.model import TenantId
from kryonix_backup.repository.layout import DESTROYED, FORMAT, KEYS
from kryonix_backup.repository.repository import Repository
from kryonix_backup.storage.store import ObjectStore


@dataclass(frozen=True, slots=True)
class RegionProof:
    """One region afterwards: ``opens`` is None where that could not be tried."""

    region: str
    address: str
    keys_removed: int
    objects_left: int
    opens: bool | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Destruction:
    """What was destroyed, by whom, and what shows it."""

    tenant: TenantId
    time: str
    by: str
    key_store: str
    masters_destroyed: tuple[str, ...]
    regions: tuple[RegionProof, ...]
    remarks: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing opens any more in any region."""
        return all(proof.opens is False for proof in self.regions)

    def to_plain(self) -> dict[str, Any]:
        """The record as JSON can say it."""
        return {"magic": "kryonix-destruction", "complete": self.complete, **asdict(self)}


def destroy_keys(
    tenant: TenantId,
    stores: Mapping[str, ObjectStore],
    masters: Mapping[str, KeyStore],
    by: str,
    clock: Clock,
) -> Destruction:
    """
    Destroy every key of the tenant in these regions, and the masters that a key store keeps.

    ``masters`` are those that the keys are wrapped for, the first and the second. May be run again
    after a failure: what is left is destroyed, and the proof is made anew. A region that does not
    answer is told in the record, which is then not complete.
    """
    removed = {name: _remove_keys(store) for name, store in stores.items()}
    gone = [
        version
        for master in masters.values()
        if isinstance(master, ManagedKeyStore)
        for version in master.destroy()
    ]
    record = Destruction(
        tenant,
        clock.now().isoformat(),
        by,
        ", ".join(master.kind for master in masters.values()),
        tuple(gone),
        tuple(
            _proof(name, store, removed[name], tenant, masters) for name, store in stores.items()
        ),
        tuple(_remarks(masters)),
    )
    body = json.dumps(record.to_plain(), indent=1).encode()
    for store in stores.values():
        with suppress(KryonixError):  # a region that does not answer is in the record
            store.replace(DESTROYED, body)
    return record


def _remove_keys(store: ObjectStore) -> int | KryonixError:
    try:
        names = [info.name for info in store.list(KEYS)]
        for name in names:
            store.delete(name)
    except KryonixError as error:
        return error
    return len(names)


def _proof(
    region: str,
    store: ObjectStore,
    removed: int | KryonixError,
    tenant: TenantId,
    masters: Mapping[str, KeyStore],
) -> RegionProof:
    if isinstance(removed, KryonixError):
        return RegionProof(region, store.address, 0, 0, None, f"not reached: {removed.message}")
    try:
        left = sum(1 for info in store.list("") if info.name not in (FORMAT, DESTROYED))
        refusals = []
        for master in masters.values():
            try:
                Repository.open(store, tenant, master)
            except KryonixError as error:
                refusals.append(f"{type(error).__name__}: {error.message}")
            else:
                evidence = f"the {master.kind} still opens it"
                return RegionProof(
                    region, store.address, removed, left, opens=True, evidence=evidence
                )
    except KryonixError as error:
        return RegionProof(region, store.address, removed, 0, None, f"not reached: {error.message}")
    return RegionProof(region, store.address, removed, left, False, "; ".join(refusals))


def _remarks(masters: Mapping[str, KeyStore]) -> list[str]:
    remarks = [
        "What stays in the buckets is sealed under keys that this program knows nowhere any more.",
        "A bucket that keeps versions may keep removed keyrings: let them expire.",
    ]
    if any(not isinstance(master, ManagedKeyStore) for master in masters.values()):
        remarks.append(
            "A passphrase or key file opens copies of keyrings that were made before: destroy it."
        )
    return remarks
