"""
The keys of one tenant, and the objects that keep them wrapped.

A key object is JSON: what the key is for, and the key wrapped for one or more recipients. Its
purpose, epoch and owner are bound to the wrapping, so that a key object of another tenant, or one
edited by hand, does not open. `docs/format.md` has the form.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.errors import Damaged, KeyRefused
from kryonix_backup.model import KeyId, RepositoryId, TenantId
from kryonix_backup.settings import Secret

KEY_BYTES = 32


class Purpose(StrEnum):
    """What a key is for."""

    DATA = "data"
    ID = "id"


_ALGORITHM = {Purpose.DATA: "HKDF-SHA-256, AES-256-GCM", Purpose.ID: "BLAKE3 keyed"}


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One unwrapped key and what is known of it."""

    id: KeyId
    purpose: Purpose
    epoch: int
    created: datetime
    secret: Secret = field(repr=False)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose key it is; bound to every wrapping."""

    repository: RepositoryId
    tenant: TenantId


class TenantKeys:
    """Every key of one tenant that the master opened; knows which one seals new data."""

    def __init__(self, records: Sequence[KeyRecord]) -> None:
        self._data = {record.id: record for record in records if record.purpose is Purpose.DATA}
        ids = [record for record in records if record.purpose is Purpose.ID]
        if len(ids) != 1 or not self._data:
            raise Damaged(f"a repository has one id key and a data key; found {len(ids)} id keys"
                          f" and {len(self._data)} data keys")  # fmt: skip
        self.id_key: Secret = ids[0].secret
        self.current: KeyRecord = max(self._data.values(), key=lambda record: record.epoch)

    def data_key(self, key_id: KeyId) -> Secret:
        """
        The data key of that id.

        Raises Damaged: the master opened this tenant's keys, so the one that is asked for was lost,
        or whoever asks for it was changed.
        """
        record = self._data.get(key_id)
        if record is None:
            raise Damaged(f"key {key_id} is not among the keys of this tenant")
        return record.secret


def new_key(
    purpose: Purpose, epoch: int, owner: Owner, master: KeyStore, now: datetime
) -> tuple[KeyId, bytes]:
    """A fresh random key, as the id and the content of its key object."""
    key_id = KeyId(secrets.token_hex(16))
    header = {
        "magic": "kryonix-key",
        "version": 1,
        "key": key_id,
        "purpose": purpose.value,
        "epoch": epoch,
        "algorithm": _ALGORITHM[purpose],
        "created": now.isoformat(),
    }
    recipient = master.wrap(Secret(os.urandom(KEY_BYTES)), _context(header, owner))
    body = json.dumps(header | {"recipients": [recipient]}, indent=1, sort_keys=True)
    return key_id, body.encode()


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
    secret = _first_that_opens(name, mine, _context(stored, owner), master, owner)
    if len(secret.reveal()) != KEY_BYTES:
        raise Damaged(f"{name} holds a key of the wrong length")
    return KeyRecord(key_id, purpose, epoch, created, secret)


def _first_that_opens(
    name: str,
    recipients: Sequence[dict[str, Any]],
    context: bytes,
    master: KeyStore,
    owner: Owner,
) -> Secret:
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
