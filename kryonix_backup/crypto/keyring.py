"""
All keys of one tenant in one object, of which every rotation writes the next generation.

A *ring key*, random and used for one generation only, seals the list of keys by AES-256-GCM, and
is itself wrapped for every *recipient*: the master key, a second master in another region, escrow.
So opening a repository asks the key store once, whatever the number of epochs; a rotation is one
object, written or not; and what a key is for, and its state, cannot be changed without the master.
`docs/format.md` has the form, `docs/adr/0014-keyring.md` the reasons.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kryonix_backup.crypto.keys import (
    KEY_BYTES,
    KeyRecord,
    KeyState,
    Owner,
    Purpose,
    first_that_opens,
)
from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.errors import Damaged, KeyRefused
from kryonix_backup.model import KeyId
from kryonix_backup.settings import Secret

_MAGIC = "kryonix-keyring"
_NONCE_BYTES = 12
_MOST_RECIPIENTS = 4  # of one kind: each may cost seconds before anything of it is authentic
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Recipient(Protocol):
    """Whom a ring key is wrapped for; every `KeyStore` is one, and who can only wrap, too."""

    @property
    def kind(self) -> str:
        """What stands under ``store`` in what `wrap` makes."""
        ...

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        """The key, wrapped, as JSON; it holds no secret."""
        ...


@dataclass(frozen=True, slots=True)
class Keyring:
    """
    The keys of a tenant as of one generation.

    ``master_since`` is when the master key was last changed; ``recipients`` are as they are stored.
    """

    generation: int
    written: datetime
    master_since: datetime
    records: tuple[KeyRecord, ...]
    recipients: tuple[Mapping[str, Any], ...]


def new_key(purpose: Purpose, epoch: int, now: datetime) -> KeyRecord:
    """A fresh random key, active from now on."""
    secret = Secret(os.urandom(KEY_BYTES))
    return KeyRecord(KeyId(secrets.token_hex(16)), purpose, epoch, now, secret, KeyState.ACTIVE)


def first_keyring(now: datetime) -> Keyring:
    """A fresh key for each purpose but escrow, for nobody to open as yet."""
    purposes = (each for each in Purpose if each is not Purpose.ESCROW)
    return Keyring(1, now, now, tuple(new_key(purpose, 1, now) for purpose in purposes), ())


def seal_keyring(keyring: Keyring, recipients: Sequence[Recipient], owner: Owner) -> bytes:
    """A keyring's object, for each of these recipients to open, instead of those it had."""
    header = {
        "magic": _MAGIC,
        "version": 1,
        "generation": keyring.generation,
        "written": keyring.written.isoformat(),
        "master_since": keyring.master_since.isoformat(),
    }
    context = _context(header, owner)
    ring_key = Secret(os.urandom(KEY_BYTES))
    wrapped = [recipient.wrap(ring_key, context) for recipient in recipients]
    nonce = os.urandom(_NONCE_BYTES)
    plain = json.dumps([_to_plain(record) for record in keyring.records]).encode()
    sealed = AESGCM(ring_key.reveal()).encrypt(nonce, plain, _bound(context, wrapped))
    body = header | {"recipients": wrapped, "keys": base64.b64encode(nonce + sealed).decode()}
    return json.dumps(body, indent=1, sort_keys=True).encode()


def open_keyring(name: str, body: bytes, owner: Owner, master: KeyStore) -> Keyring:
    """
    The keys in a keyring.

    Raises KeyRefused when the master does not open it for this owner, Damaged when it is not a
    keyring, or not the one that its name says.
    """
    try:
        stored = json.loads(body)
        recipients = stored.pop("recipients")
        sealed = base64.b64decode(stored.pop("keys"), validate=True)
        generation = int(stored["generation"])
        written, since = (
            datetime.fromisoformat(stored[key]) for key in ("written", "master_since")
        )
        valid = stored["magic"] == _MAGIC and stored["version"] == 1
        valid = valid and written.tzinfo is not None and since.tzinfo is not None
        mine = [row for row in recipients if row["store"] == master.kind]
        others = sorted({str(row["store"]) for row in recipients})
    except _MALFORMED as error:
        raise Damaged(f"{name} is not a keyring") from error
    if not valid or not name.endswith(f"/{generation:08d}"):
        raise Damaged(f"{name} is not the keyring that its name says")
    if len(mine) > _MOST_RECIPIENTS:
        raise Damaged(f"{name} is wrapped {len(mine)} times for a {master.kind}")
    if not mine:
        raise KeyRefused(
            f"{name} is wrapped for {', '.join(others) or 'nobody'}, not for a {master.kind}",
            "Give the kind of root key that the tenant's keys were last wrapped for.",
        )
    context = _context(stored, owner)
    ring_key = first_that_opens(name, mine, context, master, owner)
    try:
        cipher = AESGCM(ring_key.reveal())
        plain = cipher.decrypt(
            sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound(context, recipients)
        )
        records = tuple(_from_plain(row) for row in json.loads(plain))
    except (InvalidTag, *_MALFORMED) as error:
        raise Damaged(f"{name} was changed since it was written") from error
    return Keyring(generation, written, since, records, tuple(recipients))


def _context(header: Mapping[str, Any], owner: Owner) -> bytes:
    bound = {**header, "repository": owner.repository, "tenant": owner.tenant}
    return json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()


def _bound(context: bytes, recipients: Sequence[Mapping[str, Any]]) -> bytes:
    """What the seal binds: no recipient is added, taken away or changed unnoticed."""
    listed = json.dumps(recipients, sort_keys=True, separators=(",", ":")).encode()
    return context + hashlib.sha256(listed).digest()


def _to_plain(record: KeyRecord) -> dict[str, Any]:
    return {
        "key": record.id,
        "purpose": record.purpose.value,
        "epoch": record.epoch,
        "created": record.created.isoformat(),
        "state": record.state.value,
        "since": record.since.isoformat(),
        "secret": base64.b64encode(record.secret.reveal()).decode(),
    }


def _from_plain(row: Mapping[str, Any]) -> KeyRecord:
    return KeyRecord(
        KeyId(str(row["key"])),
        Purpose(row["purpose"]),
        int(row["epoch"]),
        datetime.fromisoformat(row["created"]),
        Secret(base64.b64decode(row["secret"], validate=True)),
        KeyState(row["state"]),
        datetime.fromisoformat(row["since"]),
    )
