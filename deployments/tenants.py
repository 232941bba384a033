"""A registered tenant as blocks on the server: what its flows load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict

from prefect.exceptions import ObjectAlreadyExists
from pydantic import HttpUrl, SecretStr, TypeAdapter

from blocks.key import KeyBlock
from blocks.logo import LOGO_PATH
from blocks.names import qualified
from blocks.region import RegionBlock
from blocks.saved import B, saved
from blocks.tenant import StoredKeys, TenantBlock, stored_source
from kryonix_backup.sdk.isolation import kept_pair
from kryonix_backup.settings import RegionSettings, TenantSettings

BLOCKS = (RegionBlock, KeyBlock, TenantBlock)


def show_logo_of(url: str, env: Mapping[str, str]) -> None:
    """Let the blocks show the picture that the server at ``url`` serves, unless one is set."""
    if not env.get("KRYONIX_LOGO_URL"):
        for block in BLOCKS:
            block._logo_url = TypeAdapter(HttpUrl).validate_python(url + LOGO_PATH)


def register_blocks() -> None:
    """Make the block types known to the server."""
    for block in BLOCKS:
        try:
            block.register_type_and_schema()
        except ObjectAlreadyExists:
            # A request that is tried again meets what its first try has made; now it is there.
            block.register_type_and_schema()


def save_tenant(settings: TenantSettings) -> None:
    """
    Save the tenant and its regions as blocks; what an operator wrote into them in the UI stays.

    That is the credentials of a region and the place of the key: the settings do not know them.
    The key pair that this machine keeps for a bucket of the tenant's own goes before.
    """
    names = [_save_region(settings, region) for region in settings.regions]
    TenantBlock(
        id=settings.id,
        tier=settings.tier,
        regions=names,
        sources=[stored_source(source) for source in settings.sources],
        key=_key(settings),
        residency=list(settings.residency),
        keys=StoredKeys(**asdict(settings.keys)),
        limits=settings.limits.to_plain(),
        transfers=[transfer._asdict() for transfer in settings.transfers],
        system_user=settings.system_user,
    ).save(settings.id, overwrite=True)


def _save_region(settings: TenantSettings, region: RegionSettings) -> str:
    name = qualified(settings.id, region.name)
    block = RegionBlock(**region.to_plain())
    if (kept := kept_pair(settings.id, region, os.environ)) is not None:
        block.access_key_id = kept[0]
        block.secret_access_key = SecretStr(kept[1].reveal().decode())
    elif (there := _saved(RegionBlock, name)) is not None:
        block.access_key_id = there.access_key_id
        block.secret_access_key = there.secret_access_key
    block.save(name, overwrite=True)
    return name


def _key(settings: TenantSettings) -> KeyBlock:
    """The tenant's saved key block; a new one leaves the choice to the worker's environment."""
    there = _saved(KeyBlock, settings.id)
    if there is None:
        there = KeyBlock()
        there.save(settings.id)
    return there


def _saved(block_type: type[B], name: str) -> B | None:
    try:
        return saved(block_type, name)
    except ValueError:
        return None
