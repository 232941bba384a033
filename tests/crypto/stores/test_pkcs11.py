"""A master in an HSM keeps the contract, and never leaves it; the HSM is SoftHSM."""

from __future__ import annotations

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType

from kryonix_backup.crypto.stores.pkcs11 import Pkcs11Store
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.errors import KeyRefused
from kryonix_backup.settings import Secret
from kryonix_backup.testing.key_stores import HsmToken
from tests.crypto.stores.contract import (
    CONTEXT,
    KEY,
    ManagedKeyStoreContract,
    Place,
    new_tenant,
)
from tests.services.softhsm import softhsm, token

__all__ = ["softhsm", "token"]

pytestmark = pytest.mark.service


class TestPkcs11(ManagedKeyStoreContract):
    @pytest.fixture
    def place(self, token: HsmToken) -> Place:
        return Place(token.root, token.environment(), (token.pin, KEY.hex(), repr(KEY)[2:-1]))


def _new(token: HsmToken) -> Pkcs11Store:
    store = open_key_store(token.root, new_tenant())
    assert isinstance(store, Pkcs11Store)
    return store


def test_a_master_encrypts_and_decrypts_and_is_never_read_out(token: HsmToken) -> None:
    store = _new(token)
    store.renew()

    def look(session: pkcs11.Session) -> None:
        (key,) = store._keys(session)
        for denied in (Attribute.EXTRACTABLE, Attribute.WRAP, Attribute.UNWRAP, Attribute.DERIVE):
            assert key[denied] is False, denied
        for held in (Attribute.SENSITIVE, Attribute.NEVER_EXTRACTABLE, Attribute.ALWAYS_SENSITIVE,
                     Attribute.LOCAL, Attribute.PRIVATE, Attribute.TOKEN):  # fmt: skip
            assert key[held] is True, held
        assert key.key_length == 256
        with pytest.raises(pkcs11.AttributeSensitive):
            key[Attribute.VALUE]

    store._token.run(look)


def test_versions_are_labelled(token: HsmToken) -> None:
    tenant = new_tenant()
    store = open_key_store(token.root, tenant)
    assert isinstance(store, Pkcs11Store)

    assert [store.renew(), store.renew()] == [f"kryonix-{tenant}/v1", f"kryonix-{tenant}/v2"]


def test_two_keys_of_one_name_are_one_version(token: HsmToken) -> None:
    """As two machines make them that renew at once: a token knows no unique names."""
    store = _new(token)
    name = store.renew()
    first = store.wrap(Secret(KEY), CONTEXT)
    store._token.run(
        lambda session: session.generate_key(KeyType.AES, 256, label=name, id=store._id, store=True)
    )

    assert store.versions() == [name]
    assert store.unwrap(first, CONTEXT).reveal() == KEY
    assert store.unwrap(store.wrap(Secret(KEY), CONTEXT), CONTEXT).reveal() == KEY
    assert store.destroy() == [name]
    with pytest.raises(KeyRefused, match="destroyed"):
        store.unwrap(first, CONTEXT)


@pytest.mark.parametrize("name", ["", "v1", "/v1", "other/v1", "x/v01", "x/v0", "x/v-1", "x/v²",
                                  "x/v", "x/v1 ", "x/v9999999999"])  # fmt: skip
def test_only_whole_numbers_after_the_label_are_versions(token: HsmToken, name: str) -> None:
    store = _new(token)
    own = name.replace("x", store._location.label)

    assert store._number(own) == 0
    assert store._number(f"{store._location.label}/v12") == 12
