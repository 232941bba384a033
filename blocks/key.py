"""Where a worker finds a tenant's root key; never the key itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl

from blocks.logo import logo_url
from kryonix_backup.errors import SecretMissing
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RootKey


class KeyBlock(Block):
    """The place on the worker where a tenant's passphrase or key file is."""

    _block_type_name: ClassVar[str] = "Kryonix Key"
    _block_type_slug: ClassVar[str] = "kryonix-key"
    _description: ClassVar[str] = (
        "Where a worker finds a tenant's root key. Never write a passphrase or a key here: any"
        " client of the Prefect API can read what a block holds, secret or not. With all three"
        " empty the worker's own KRYONIX_* variables decide."
    )
    _logo_url: ClassVar[HttpUrl] = logo_url()

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

    def to_settings(self, env: Mapping[str, str], tenant: TenantId) -> RootKey:
        """
        The root key, read on the worker whose environment ``env`` is.

        Raises SecretMissing, and UsageError where two places are named.
        """
        named = {
            "KRYONIX_PASSPHRASE_FILE": self.passphrase_file,
            "KRYONIX_KEY_FILE": self.key_file,
        }
        places = {name: path for name, path in named.items() if path}
        if self.passphrase_variable:
            value = env.get(self.passphrase_variable)
            if not value:
                raise SecretMissing(
                    f"the worker has no variable {self.passphrase_variable} for tenant {tenant}"
                )
            places["KRYONIX_PASSPHRASE"] = value
        return RootKey.from_environment(places or env, tenant)
