"""A tenant's masters: the one that opens its keys, a second one, and the one that is to follow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from kryonix_backup.crypto.keyring import Keyring
from kryonix_backup.crypto.keystore import KeyStore, ManagedKeyStore
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.errors import InvalidName, UsageError
from kryonix_backup.model import TenantId
from kryonix_backup.sdk.residency import check_key_store
from kryonix_backup.settings import RootKey, TenantSettings
from kryonix_backup.tenancy.registry import Registry

_NEW, _SECOND = "KRYONIX_NEW_", "KRYONIX_SECOND_"
_COMMON, _ONE_MASTER = "KRYONIX_KEY_STORE", re.compile(r"[?&]label=|^kms://[^?/]")
_ROOTS = ("PASSPHRASE", "PASSPHRASE_FILE", "KEY_FILE")
_LETS_IN = (
    "PIN", "PIN_FILE", "KMS_ACCESS_KEY_ID", "KMS_SECRET_ACCESS_KEY", "KMS_SESSION_TOKEN",
)  # fmt: skip
HOW_TO_RENEW = f"Set {_NEW}PASSPHRASE_FILE or {_NEW}KEY_FILE and run 'kryonix keys ID move'."


def check_id(tenant: TenantId) -> None:
    """Raise InvalidName where variables of this tenant would be those of another one's masters."""
    if tenant in ("new", "second") or tenant.endswith("-second"):
        raise InvalidName(
            f"no tenant may be called {tenant}: its KRYONIX_{{TENANT}}_PIN and so on would name"
            " another tenant's second or new master",
            "Choose another id.",
        )


def master_of(settings: TenantSettings, root: RootKey, env: Mapping[str, str]) -> KeyStore:
    """
    The tenant's master, to be changed or made.

    Raises UsageError where a variable that is for all tenants names one: what rotates or destroys
    it for one of them would do so for all.
    """
    url = root.store.url if root.store else ""
    common = url == env.get(_COMMON) and url != settings.keys.store
    if common and _ONE_MASTER.search(url):
        raise UsageError(
            f"{_COMMON} names one master key for every tenant",
            f"Take its label or alias out, or set {_own(settings.id)}KEY_STORE.",
        )
    return open_key_store(root, settings.id)


def second_master(settings: TenantSettings, env: Mapping[str, str]) -> KeyStore | None:
    """
    The tenant's second master, if it has one.

    ``KRYONIX_{TENANT}_SECOND_PIN_FILE`` and so on come before ``KRYONIX_SECOND_PIN_FILE``; without
    any of them what lets in to the first has to let in to it too.
    """
    url = settings.keys.second
    own = f"{_own(settings.id)}SECOND_"
    return _opened(url, settings.id, env, own, _SECOND) if url else None


def new_master(settings: TenantSettings, store_url: str | None, env: Mapping[str, str]) -> KeyStore:
    """
    The HSM or KMS at that address, or what ``KRYONIX_NEW_PASSPHRASE`` and so on say.

    ``KRYONIX_NEW_PIN_FILE`` and so on let in where the old ones do not. Raises ResidencyViolation,
    SecretMissing, and UsageError where nothing says which.
    """
    check_key_store(settings, store_url)
    if store_url:
        return _opened(store_url, settings.id, env, _NEW)
    given = {f"KRYONIX_{end}": env[_NEW + end] for end in _ROOTS if env.get(_NEW + end)}
    if not given:
        raise UsageError(
            "no new passphrase or key file is set, and no --to names a key store",
            f"Set {_NEW}PASSPHRASE_FILE or {_NEW}KEY_FILE, or say --to pkcs11:… or kms:….",
        )
    return open_key_store(RootKey.from_environment(given, settings.id), settings.id)


def _opened(url: str, tenant: TenantId, env: Mapping[str, str], *prefixes: str) -> KeyStore:
    """The store, let in by what has the first of these prefixes that is set, or as the first is."""
    found = (
        {f"KRYONIX_{end}": env[prefix + end] for end in _LETS_IN if env.get(prefix + end)}
        for prefix in prefixes
    )
    if given := next((each for each in found if each), None):
        first = {f"{prefix}{end}" for prefix in ("KRYONIX_", _own(tenant)) for end in _LETS_IN}
        env = {name: value for name, value in env.items() if name not in first} | given
    return open_key_store(RootKey.from_environment(env, tenant, url), tenant)


def _own(tenant: TenantId) -> str:
    return f"KRYONIX_{tenant.upper().replace('-', '_')}_"


def registered_with(
    tenant: TenantId, store_url: str | None, env: Mapping[str, str]
) -> TenantSettings | None:
    """
    The settings of a tenant that is registered here, with its master at that address.

    Raises what would keep them from being registered: before any key is changed.
    """
    registry = Registry.at(env)
    if tenant not in registry.ids():
        return None
    known = registry.load(tenant)
    known = replace(known, keys=replace(known.keys, store=store_url))
    registry.check(known)
    return known


def made(master: KeyStore) -> KeyStore:
    """The master, which an HSM or KMS makes if it has none yet."""
    if isinstance(master, ManagedKeyStore) and not master.versions():
        master.renew()
    return master


def retire_others(master: KeyStore, keyring: Keyring) -> None:
    """Destroy the versions before the one that the keyring is wrapped by, whoever made that."""
    if isinstance(master, ManagedKeyStore) and (before := _before(master, keyring)):
        master.retire(before)


def has_others(master: KeyStore, keyring: Keyring) -> bool:
    """Whether there is a version before the one that the keyring is wrapped by."""
    if not isinstance(master, ManagedKeyStore):
        return False
    wrapping = _before(master, keyring)
    return wrapping is not None and master.versions()[0] != wrapping


def _before(master: ManagedKeyStore, keyring: Keyring) -> str | None:
    names = master.versions()
    wrapping = [str(row["key"]) for row in keyring.recipients if row.get("key") in names]
    return wrapping[0] if wrapping else None


def is_same(one: KeyStore, other: KeyStore) -> bool:
    """Whether both are the same master in the same HSM or KMS."""
    return (
        isinstance(one, ManagedKeyStore)
        and isinstance(other, ManagedKeyStore)
        and one.address == other.address
    )
