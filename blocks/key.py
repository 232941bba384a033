"""Where a worker finds a tenant's root key; never the key itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl, field_validator

from blocks.logo import logo_url
from kryonix_backup.errors import SecretMissing
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RootKey

_LETS_IN = re.compile(r"^KRYONIX_(.+_)?(PIN|PIN_FILE|KMS_[A-Z_]+)$|^AWS_")


class KeyBlock(Block):
    """The place where a tenant's passphrase or key file is on the worker, or its HSM or KMS."""

    _block_type_name: ClassVar[str] = "Kryonix Key"
    _block_type_slug: ClassVar[str] = "kryonix-key"
    _description: ClassVar[str] = (
        "Where a worker finds a tenant's root key. Never write a passphrase, PIN or key here: any"
        " client of the Prefect API can read what a block holds, secret or not. With all of them"
        " empty the worker's own KRYONIX_* variables decide."
    )
    _logo_url: ClassVar[HttpUrl] = logo_url()

    # What is typed into the wrong field may be a secret: an error must not repeat it.
    model_config = ConfigDict(hide_input_in_errors=True)

    passphrase_variable: str | None = Field(
        default=None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="Name of the worker's environment variable that holds the passphrase.",
    )
    passphrase_file: str | None = Field(
        default=None,
        description="Path on the worker of a file whose first line is the passphrase.",
    )
    key_file: str | None = Field(
        default=None,
        description="Path on the worker of a file of at least 32 random bytes.",
    )

    store: str | None = Field(
        default=None,
        pattern=r"^(pkcs11|kms)://",
        description="Address of the HSM or KMS that keeps the tenant's master key, without a PIN.",
    )
    pin_variable: str | None = Field(
        default=None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="Name of the worker's environment variable that holds the HSM's PIN.",
    )
    pin_file: str | None = Field(
        default=None,
        description="Path on the worker of a file whose first line is the HSM's PIN.",
    )

    @field_validator("store")
    @classmethod
    def holds_no_secret(cls, store: str | None) -> str | None:
        """The address as it is; raises ValueError for one with a secret in it."""
        if store and re.search(r"[?&][^=&]*(pin|secret|key|session)[^=&]*=|@", store, re.I):
            raise ValueError("the address of a key store holds no PIN and no credentials")
        return store

    def to_settings(self, env: Mapping[str, str], tenant: TenantId) -> RootKey:
        """
        The root key, read on the worker whose environment ``env`` is.

        Raises SecretMissing, and UsageError where two places are named.
        """
        places = {
            "KRYONIX_PASSPHRASE": _variable(self.passphrase_variable, env, tenant),
            "KRYONIX_PASSPHRASE_FILE": self.passphrase_file,
            "KRYONIX_KEY_FILE": self.key_file,
            "KRYONIX_KEY_STORE": self.store,
        }
        named = {name: value for name, value in places.items() if value}
        if not named:
            return RootKey.from_environment(env, tenant)
        pins = {
            "KRYONIX_PIN": _variable(self.pin_variable, env, tenant),
            "KRYONIX_PIN_FILE": self.pin_file,
        }
        here = {name: value for name, value in pins.items() if value}
        # What lets the worker in is its own, where the block does not say otherwise.
        others = {name: value for name, value in env.items() if _LETS_IN.search(name)}
        if here:
            others = {name: value for name, value in others.items() if "_PIN" not in name}
        return RootKey.from_environment({**others, **here, **named}, tenant)


def _variable(name: str | None, env: Mapping[str, str], tenant: TenantId) -> str | None:
    if not name:
        return None
    if not env.get(name):
        raise SecretMissing(f"the worker has no variable {name} for tenant {tenant}")
    return env[name]
