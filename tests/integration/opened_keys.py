"""The keys themselves, which nobody but the engine ever sees: taken by opening a repository."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from shamir_mnemonic import combine_mnemonics

from kryonix_backup.crypto.keyring import open_keyring
from kryonix_backup.crypto.keys import Owner, Purpose
from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.crypto.seal import HEADER_BYTES, MAGIC, Header
from kryonix_backup.crypto.stores.encoding import from_text
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.crypto.stores.root import RootKeyStore
from kryonix_backup.errors import Damaged
from kryonix_backup.model import TenantId
from kryonix_backup.repository.keyrings import described_at, newest_keyring
from kryonix_backup.settings import RootKey, Secret
from kryonix_backup.storage.store import ObjectStore


class _Listening:
    """A master key that keeps what it unwraps."""

    def __init__(self, master: KeyStore) -> None:
        self._master = master
        self.unwrapped: list[bytes] = []

    @property
    def kind(self) -> str:
        return self._master.kind

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        return self._master.wrap(key, context)

    def unwrap(self, recipient: Mapping[str, Any], context: bytes) -> Secret:
        key = self._master.unwrap(recipient, context)
        self.unwrapped.append(key.reveal())
        return key


def keys_of(tenant: TenantId, store: ObjectStore, root: RootKey) -> dict[str, bytes]:
    """Every key that has to do with the repository at a store, by a name for messages."""
    owner = Owner(described_at(store).repository, tenant)
    newest = newest_keyring(store, owner)
    assert newest is not None
    master = open_key_store(root, tenant)
    listening = _Listening(master)
    keyring = open_keyring(*newest, owner, listening)
    found = {f"{tenant}: the ring key": listening.unwrapped[0]}
    if isinstance(master, RootKeyStore):
        for row in json.loads(newest[1])["recipients"]:
            if row["store"] == master.kind:
                salt, iterations = from_text(row["salt"]), int(row.get("iterations", 0))
                found[f"{tenant}: the master key"] = master._derive(salt, iterations)
    for record in keyring.records:
        found[f"{tenant}: the {record.purpose.value} key {record.epoch}"] = record.secret.reveal()
    (id_key,) = (each.secret for each in keyring.records if each.purpose is Purpose.ID)
    naming = HKDFExpand(SHA256(), 32, b"kryonix-backup chunk names v1")
    found[f"{tenant}: the key that names chunks"] = naming.derive(id_key.reveal())
    data = {each.id: each.secret.reveal() for each in keyring.records}
    return found | dict(_derived(tenant, store, owner, data))


def _derived(
    tenant: TenantId, store: ObjectStore, owner: Owner, data: Mapping[Any, bytes]
) -> Iterator[tuple[str, bytes]]:
    """The key of every sealed object, as docs/format.md says it is derived."""
    for info in store.list(""):
        body = store.get(info.name)
        if not body.startswith(MAGIC):
            continue
        name = info.name
        try:
            header = Header.from_bytes(body[:HEADER_BYTES], name)
        except Damaged:
            continue
        info_ = b"\0".join(
            (
                b"kryonix-backup v1",
                str(int(header.kind)).encode(),
                owner.repository.encode(),
                name.encode(),
            )
        )
        key = HKDF(SHA256(), 32, header.salt, info_).derive(data[header.key_id])
        yield f"{tenant}: the key of {name}", key


def escrow_key(shares: list[str]) -> bytes:
    """What enough shares make."""
    return bytes(combine_mnemonics(shares))
