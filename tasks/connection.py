"""A tenant's name becomes the engine's client, on the worker, from the tenant's blocks."""

from __future__ import annotations

import os

from kryonix_backup.sdk.client import Client

from blocks.saved import saved
from blocks.tenant import TenantBlock
from kryonix_backup.errors import TenantUnknown
from kryonix_backup.settings import RootKey, TenantSettings


def load_tenant(tenant: str) -> tuple[TenantSettings, RootKey]:
    """
    The tenant's settings and root key, out of the block saved under its id.

    Raises TenantUnknown, SecretMissing and ConfigError.
    """
    try:
        block = saved(TenantBlock, tenant)
    except ValueError as error:
        raise TenantUnknown(
            f"the Prefect server has no kryonix-tenant block named {tenant}",
            "Save it with 'kryonix deploy', or in the UI under Blocks.",
        ) from error
    settings = block.to_settings()
    return settings, block.key.to_settings(os.environ, settings.id)


def connect(tenant: str) -> Client:
    """The engine's client of that tenant; raises what `load_tenant` raises."""
    settings, root = load_tenant(tenant)
    return Client(settings, root)
