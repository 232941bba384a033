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
from dataclasses import asdict, dataclass, replace
from typing import Any

from kryonix_backup.clock import Clock
from kryonix_backup.crypto.keystore import KeyStore, ManagedKeyStore
from kryonix_backup.errors import Damaged, KeyRefused, KeyUnusable, KryonixError
from kryonix_backup.model import TenantId
from kryonix_backup.repository.keyrings import described_at
from kryonix_backup.repository.layout import DESTROYED, FORMAT, KEYS
from kryonix_backup.repository.repository import Repository
from kryonix_backup.storage.store import ObjectStore

_MAGIC = "kryonix-destruction"


@dataclass(frozen=True, slots=True)
class RegionProof:
    """One region: whether a master opened it before and opens it now; None is not known."""

    region: str
    address: str
    opened_before: bool | None
    keys_removed: int = 0
    objects_left: int = 0
    opens: bool | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Destruction:
    """What was destroyed, by whom, and what shows it."""

    tenant: TenantId
    time: str
    by: str
    key_store: str
    masters_destroyed: tuple[str, ...]
    masters_left: tuple[str, ...]
    """Why a master that a key store keeps could not be destroyed."""
    regions: tuple[RegionProof, ...]
    remarks: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing opens any more in any region, and no master is left."""
        return not self.masters_left and all(proof.opens is False for proof in self.regions)

    def to_plain(self) -> dict[str, Any]:
        """The record as JSON can say it."""
        return {"magic": _MAGIC, "complete": self.complete, **asdict(self)}


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
    after a failure: what is left is destroyed, and the proof is made anew. A region or a key store
    that does not answer is told in the record, which is then not complete.
    """
    before = {
        name: RegionProof(name, store.address, _opened(store, tenant, masters))
        for name, store in stores.items()
    }
    # First of all, so that nobody who completes a change of keys brings them back from a region.
    begun = {"magic": _MAGIC, "complete": False, "tenant": tenant, "by": by}
    _write(stores, {**begun, "time": clock.now().isoformat()})
    removed = {name: _remove_keys(store) for name, store in stores.items()}
    gone, left = _destroy_masters(masters)
    record = Destruction(
        tenant,
        clock.now().isoformat(),
        by,
        ", ".join(master.kind for master in masters.values()),
        tuple(gone),
        tuple(left),
        tuple(
            _proof(before[name], store, removed[name], tenant, masters)
            for name, store in stores.items()
        ),
        tuple(_remarks(masters)),
    )
    _write(stores, record.to_plain())
    return record


def _write(stores: Mapping[str, ObjectStore], record: Mapping[str, Any]) -> None:
    body = json.dumps(record, indent=1).encode()
    for store in stores.values():
        with suppress(KryonixError):  # a region that does not answer is in the record
            described_at(store)
            store.replace(DESTROYED, body)


def _opened(store: ObjectStore, tenant: TenantId, masters: Mapping[str, KeyStore]) -> bool | None:
    try:
        return _try_to_open(store, tenant, masters)[0]
    except KryonixError:
        return None


def _destroy_masters(masters: Mapping[str, KeyStore]) -> tuple[list[str], list[str]]:
    gone: list[str] = []
    left: list[str] = []
    for name, master in masters.items():
        if isinstance(master, ManagedKeyStore):
            try:
                gone += master.destroy()
            except KryonixError as error:
                left.append(f"{name}: {error.message}")
    return gone, left


def _remove_keys(store: ObjectStore) -> int | KryonixError:
    try:
        names = [info.name for info in store.list(KEYS)]
        for name in names:
            store.delete(name)
    except KryonixError as error:
        return error
    return len(names)


def _proof(
    known: RegionProof,
    store: ObjectStore,
    removed: int | KryonixError,
    tenant: TenantId,
    masters: Mapping[str, KeyStore],
) -> RegionProof:
    """What is known of a region, with what became of it."""
    if isinstance(removed, KryonixError):
        return replace(known, evidence=f"not reached: {removed.message}")
    try:
        left = sum(1 for info in store.list("") if info.name not in (FORMAT, DESTROYED))
        opens, evidence = _try_to_open(store, tenant, masters)
    except KryonixError as error:
        opens, left, evidence = None, 0, f"not reached: {error.message}"
    return replace(known, keys_removed=removed, objects_left=left, opens=opens, evidence=evidence)


def _try_to_open(
    store: ObjectStore, tenant: TenantId, masters: Mapping[str, KeyStore]
) -> tuple[bool, str]:
    """Whether a master opens what is there, and what it said; raises where it did not answer."""
    refusals = []
    for name, master in masters.items():
        try:
            Repository.open(store, tenant, master)
        except (KeyRefused, KeyUnusable, Damaged) as error:
            # Anything else proves nothing, least of all an empty place: a disk that is not mounted.
            refusals.append(f"{name}: {type(error).__name__}: {error.message}")
        else:
            return True, f"the {name} still opens it"
    return False, "; ".join(refusals)


def _remarks(masters: Mapping[str, KeyStore]) -> list[str]:
    remarks = [
        "What stays in the buckets is sealed under keys that this program knows nowhere any more.",
        "A bucket that keeps versions may keep removed keyrings: let them expire.",
    ]
    if any(master.kind == "kms" for master in masters.values()):
        remarks.append("A KMS keeps a deleted key for 7 days, in which it can be brought back.")
    if any(not isinstance(master, ManagedKeyStore) for master in masters.values()):
        remarks.append(
            "A passphrase or key file opens copies of keyrings that were made before: destroy it."
        )
    return remarks
