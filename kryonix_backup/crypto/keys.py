"""
The keys of one tenant, and what may be done with each.

They are kept in keyrings (`keyring`). The first repositories had an object for each key instead,
which `open_key` opens: JSON, with the key wrapped for one or more recipients, and its purpose,
epoch and owner bound to the wrapping. `docs/format.md` has both forms.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.errors import Damaged, KeyRefused, KeyUnusable
from kryonix_backup.model import KeyId, RepositoryId, TenantId
from kryonix_backup.settings import Secret

KEY_BYTES = 32


class Purpose(StrEnum):
    """What a key is for."""

    DATA = "data"
    """Derives the keys that seal objects, by HKDF-SHA-256 for AES-256-GCM."""
    ID = "id"
    """Names chunks, by keyed BLAKE3."""
    AUDIT = "audit"
    """Signs the audit chain, by Ed25519."""
    ARCHIVE = "archive"
    """Derives the keys of archive objects' envelopes, for AES-256-CBC and HMAC-SHA-256."""
    ESCROW = "escrow"
    """Shows an escrow's shares that the tenant wrapped for them; there is one per escrow."""


class KeyState(StrEnum):
    """What may be done with a key (the states of NIST SP 800-57 part 1, section 7)."""

    PRE_ACTIVE = "pre-active"
    """Made, and in every region, before it is needed: neither seals nor opens yet."""
    ACTIVE = "active"
    DECRYPT_ONLY = "decrypt-only"
    """Opens what it sealed, and seals no more: a later epoch does."""
    SUSPENDED = "suspended"
    """Neither seals nor opens until an operator makes it active or decrypt-only again."""
    COMPROMISED = "compromised"
    """Somebody else may know it: opens what is still to be sealed anew, and seals no more."""
    DESTROYED = "destroyed"
    """Its secret is gone; only its record is left."""


_OPENS = {KeyState.ACTIVE, KeyState.DECRYPT_ONLY, KeyState.COMPROMISED}


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One unwrapped key and what is known of it; the secret of a destroyed one is empty."""

    id: KeyId
    purpose: Purpose
    epoch: int
    created: datetime
    secret: Secret = field(repr=False)
    state: KeyState = KeyState.ACTIVE
    changed: datetime | None = None

    @property
    def since(self) -> datetime:
        """Since when it is in its state."""
        return self.changed or self.created


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose key it is; bound to every wrapping."""

    repository: RepositoryId
    tenant: TenantId


Newer = Callable[[], Sequence[KeyRecord] | None]


class TenantKeys:
    """
    Every key of one tenant that the master opened; knows which one seals new data.

    Others may change keys while this process runs: ``newer`` gives the records as they are now,
    or None where nothing was changed since it was asked last.
    """

    def __init__(self, records: Sequence[KeyRecord], newer: Newer = lambda: None) -> None:
        self._newer = newer
        self._take(records)

    def _take(self, records: Sequence[KeyRecord]) -> None:
        data = {record.id: record for record in records if record.purpose is Purpose.DATA}
        ids = [record for record in records if record.purpose is Purpose.ID]
        if len(ids) != 1 or not data:
            raise Damaged(f"a repository has one id key and a data key; found {len(ids)} id keys"
                          f" and {len(data)} data keys")  # fmt: skip
        self._data = data
        self._id = ids[0]
        self.id_key: Secret = ids[0].secret
        self._audit = [record for record in records if record.purpose is Purpose.AUDIT]
        self._archive = [record for record in records if record.purpose is Purpose.ARCHIVE]

    def __reduce__(self) -> str:
        raise TypeError("keys are never pickled")

    def refresh(self) -> None:
        """Take up what was changed; raises KeyUnusable where the keys were destroyed."""
        records = self._newer()
        if records is not None:
            self._take(records)

    @property
    def current(self) -> KeyRecord:
        """The data key that seals: the active one of the newest epoch; raises KeyUnusable."""
        active = [record for record in self._data.values() if record.state is KeyState.ACTIVE]
        if not active:
            raise KeyUnusable("no data key of this tenant is active: nothing can be sealed")
        return max(active, key=lambda record: record.epoch)

    def check_sealed(self, key_ids: Iterable[KeyId]) -> None:
        """
        Raise KeyUnusable where what these keys sealed a moment ago is not to be relied on.

        That is where one was suspended, compromised or destroyed meanwhile; one that made way for a
        later epoch may finish what it began.
        """
        self.refresh()
        for key_id in key_ids:
            record = self._data.get(key_id)
            if record is None or record.state not in (KeyState.ACTIVE, KeyState.DECRYPT_ONLY):
                state = record.state.value if record else "gone"
                raise KeyUnusable(
                    f"key {key_id} is {state} since this began, and has sealed a part of it",
                    "Run the same command again: another key seals now. While a key is suspended"
                    " ('kryonix keys ID show'), nothing that needs what it sealed can be done.",
                )

    @property
    def audit_keys(self) -> list[Secret]:
        """
        The seeds of the keys that sign the audit chain, first the one that signs now.

        The last comes from the id key, and signed in repositories from before keyrings.
        """
        newest_first = sorted(self._audit, key=lambda record: record.epoch, reverse=True)
        own = [record.secret for record in newest_first if record.secret.reveal()]
        return [*own, _audit_key(self.id_key)]

    @property
    def of_audit(self) -> TenantKeys:
        """
        The keys that seal the audit chain, derived from those that sign it.

        Not the data keys: one that is suspended or compromised must not take the chain with it.
        """
        sources = [*(each for each in self._audit if each.secret.reveal()), self._id]
        return TenantKeys([self._id, *(_sealing_audit(each) for each in sources)])

    @property
    def of_archive(self) -> TenantKeys:
        """The keys of archive objects' envelopes; raises KeyUnusable where none was made yet."""
        if not self._archive:
            raise KeyUnusable(
                "this tenant has no archive key yet", "Run 'kryonix keys ID rotate-archive'."
            )
        own = (replace(each, purpose=Purpose.DATA) for each in self._archive)
        return TenantKeys([self._id, *own])

    def data_key(self, key_id: KeyId) -> Secret:
        """
        The data key of that id.

        Raises Damaged: the master opened this tenant's keys, so the one that is asked for was lost,
        or whoever asks for it was changed. So is one that was destroyed, after all that it sealed
        was sealed anew. Raises KeyUnusable where an operator has suspended it.
        """
        if key_id not in self._data:
            self.refresh()  # another process may have begun an epoch
        record = self._data.get(key_id)
        if record is None:
            raise Damaged(f"key {key_id} is not among the keys of this tenant")
        if record.state is KeyState.DESTROYED:
            raise Damaged(
                f"key {key_id} (epoch {record.epoch}) was destroyed: what it sealed is gone"
            )
        if record.state not in _OPENS:
            raise KeyUnusable(
                f"key {key_id} (epoch {record.epoch}) is {record.state.value} since"
                f" {record.since.isoformat(timespec='seconds')}: what it sealed does not open"
            )
        return record.secret


def _sealing_audit(source: KeyRecord) -> KeyRecord:
    secret = HKDFExpand(SHA256(), KEY_BYTES, b"kryonix-backup audit seal v1").derive(
        source.secret.reveal()
    )
    epoch = source.epoch if source.purpose is Purpose.AUDIT else 0
    return KeyRecord(source.id, Purpose.DATA, epoch, source.created, Secret(secret))


def _audit_key(id_key: Secret) -> Secret:
    info = b"kryonix-backup audit key v1"
    return Secret(HKDFExpand(SHA256(), KEY_BYTES, info).derive(id_key.reveal()))


def open_key(name: str, body: bytes, owner: Owner, master: KeyStore) -> KeyRecord:
    """
    The key in a key object.

    Raises KeyRefused when the master does not open it for this owner, Damaged when it is not a
    key object, or not the one that its name says.
    """
    try:
        stored = json.loads(body)
        recipients = stored.pop("recipients")
        purpose, epoch = Purpose(stored["purpose"]), int(stored["epoch"])
        created = datetime.fromisoformat(stored["created"])
        key_id = KeyId(str(stored["key"]))
        valid = stored["magic"] == "kryonix-key" and stored["version"] == 1
        mine = [row for row in recipients if row["store"] == master.kind]
    except (
        ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise Damaged(f"{name} is not a key object") from error
    if not valid or not name.endswith(f"/{key_id}") or created.tzinfo is None:
        raise Damaged(f"{name} is not the key object that its name says")
    if not mine:
        others = sorted({str(row["store"]) for row in recipients})
        raise KeyRefused(
            f"{name} is wrapped for {', '.join(others) or 'nobody'}, not for a {master.kind}",
            "Give the kind of root key that the tenant was made with.",
        )
    secret = first_that_opens(name, mine, _context(stored, owner), master, owner)
    if len(secret.reveal()) != KEY_BYTES:
        raise Damaged(f"{name} holds a key of the wrong length")
    return KeyRecord(key_id, purpose, epoch, created, secret)


def first_that_opens(
    name: str,
    recipients: Sequence[Mapping[str, Any]],
    context: bytes,
    master: KeyStore,
    owner: Owner,
) -> Secret:
    """What the first recipient that the master unwraps holds; raises KeyRefused."""
    for recipient in recipients:
        try:
            return master.unwrap(recipient, context)
        except KeyRefused as error:
            refused = error
    raise KeyRefused(
        f"{name}: {refused.message} (wrong {master.kind}, or not the repository of {owner.tenant})"
    ) from refused


def _context(header: dict[str, Any], owner: Owner) -> bytes:
    bound = header | {"repository": owner.repository, "tenant": owner.tenant}
    return json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()
