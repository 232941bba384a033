"""A root key says which store wraps; the vendor is imported for who needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kryonix_backup.crypto.keystore import KeyStore, ManagedKeyStore
from kryonix_backup.crypto.stores.registry import open_key_store, probe_key_store
from kryonix_backup.errors import InvalidUrl, KeyRefused, SecretMissing
from kryonix_backup.model import TenantId
from kryonix_backup.settings import KeyStoreSettings, RootKey, Secret
from kryonix_backup.testing.key_stores import HsmToken, MotoKms
from tests.crypto.stores.contract import new_tenant
from tests.services.softhsm import kms, softhsm, token

__all__ = ["kms", "softhsm", "token"]

ACME = TenantId("acme")
HSM = KeyStoreSettings("pkcs11:///usr/lib/p11.so?token=a", pin=Secret("1234"))
KMS = KeyStoreSettings("kms://?region=us-east-1", None, "key", Secret("secret"))


@pytest.mark.parametrize(
    ("root", "kind"),
    [
        (RootKey(passphrase=Secret("horse")), "passphrase"),
        (RootKey(key_file=Secret(bytes(32))), "key-file"),
        (RootKey(store=HSM), "pkcs11"),
        (RootKey(store=KMS), "kms"),
    ],
)
def test_a_root_names_its_store_and_nothing_is_asked_of_it(root: RootKey, kind: str) -> None:
    store: KeyStore = open_key_store(root, ACME)

    assert store.kind == kind
    assert isinstance(store, ManagedKeyStore) == (root.store is not None)


@pytest.mark.parametrize(
    ("root", "error"),
    [
        (RootKey(), KeyRefused),
        (RootKey(store=KeyStoreSettings(HSM.url)), SecretMissing),
        (RootKey(store=KeyStoreSettings(KMS.url)), SecretMissing),
        (RootKey(store=KeyStoreSettings("vault://x", pin=Secret("1234"))), InvalidUrl),
    ],
)
def test_a_root_that_lets_nobody_in_is_refused(root: RootKey, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_key_store(root, ACME)


def test_a_passphrase_needs_no_vendor() -> None:
    code = (
        "import sys; from kryonix_backup.crypto.stores.registry import open_key_store\n"
        "assert not {'pkcs11', 'boto3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.service
def test_a_store_is_probed_by_wrapping(token: HsmToken, kms: MotoKms) -> None:
    tenant = new_tenant()
    assert probe_key_store(RootKey(key_file=Secret(bytes(32))), tenant) == "set, a key-file"
    for root in (token.root, kms.root):
        with pytest.raises(KeyRefused):
            probe_key_store(root, tenant)
        store = open_key_store(root, tenant)
        assert isinstance(store, ManagedKeyStore)
        name = store.renew()
        assert probe_key_store(root, tenant) == f"{store.address} wraps and opens, by {name}"
