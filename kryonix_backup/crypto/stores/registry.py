"""From a tenant's root key to the store that wraps with it: the one place that knows them all."""

from __future__ import annotations

import os

from kryonix_backup.crypto.keystore import KeyStore, ManagedKeyStore
from kryonix_backup.crypto.stores.location import HsmLocation, parse_key_store
from kryonix_backup.crypto.stores.root import RootKeyStore
from kryonix_backup.errors import KeyRefused, SecretMissing
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RootKey, Secret


def open_key_store(root: RootKey, tenant: TenantId) -> KeyStore:
    """
    The key store that a root key names; nothing is asked of it yet.

    Raises InvalidUrl, SecretMissing, and KeyRefused for a root that protects nothing.
    """
    if root.store is None:
        return RootKeyStore(root)
    location = parse_key_store(root.store.url, tenant)
    if isinstance(location, HsmLocation):
        from kryonix_backup.crypto.stores.pkcs11 import Pkcs11Store

        if root.store.pin is None:
            raise SecretMissing(
                f"tenant {tenant} has its key in an HSM, and no PIN is set",
                "Set KRYONIX_PIN_FILE to a file whose first line is the PIN.",
            )
        return Pkcs11Store(location, root.store.pin)
    from kryonix_backup.crypto.stores.kms import KmsStore

    if root.store.access_key_id is None or root.store.secret_access_key is None:
        raise SecretMissing(
            f"tenant {tenant} has its key in a KMS, and no credentials are set for it",
            "Set KRYONIX_KMS_ACCESS_KEY_ID and KRYONIX_KMS_SECRET_ACCESS_KEY.",
        )
    return KmsStore(location, root.store)


def probe_key_store(root: RootKey, tenant: TenantId) -> str:
    """
    What shows that the tenant's key store answers: it wraps a random key, and opens it again.

    Raises what the store raises.
    """
    store = open_key_store(root, tenant)
    if not isinstance(store, ManagedKeyStore):
        return f"set, a {store.kind}"
    probe = Secret(os.urandom(32))
    recipient = store.wrap(probe, b"kryonix doctor")
    if store.unwrap(recipient, b"kryonix doctor").reveal() != probe.reveal():
        raise KeyRefused(f"{store.address} does not give back the key that it wrapped")
    return f"{store.address} wraps and opens, by {recipient['key']}"
