"""A stored tenant: what the flows load by the tenant's id."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import BaseModel, Field, HttpUrl

from blocks.key import KeyBlock
from blocks.logo import logo_url
from blocks.region import RegionBlock
from blocks.saved import saved
from kryonix_backup.settings import SourceSettings, TenantSettings


class StoredSource(BaseModel):
    """One source of a tenant, as a block holds it."""

    name: str = Field(description="Name of the source, unique within the tenant.")
    url: str = Field(description="Address of the source, such as files:///directory.")
    include: list[str] = Field(
        default_factory=list, description="Patterns of what to keep; empty means everything."
    )
    exclude: list[str] = Field(
        default_factory=list, description="Patterns of what to leave out, as in a .gitignore."
    )
    one_file_system: bool = Field(
        default=False, description="Whether to stay on the file system the source begins on."
    )
    compression: str = Field(
        default="adaptive", description="How to compress: adaptive chooses by the content."
    )

    def to_plain(self) -> dict[str, Any]:
        """The form that the engine's settings are read from."""
        return self.model_dump()


class StoredKeys(BaseModel):
    """Where a tenant's master key is and when keys are due, as a block holds it."""

    store: str | None = Field(
        default=None, description="Address of an HSM or KMS; empty: what the worker's key names."
    )
    second: str | None = Field(default=None, description="A second one that opens the keys too.")
    data_days: int | None = Field(
        default=None, description="Days until a data key is due to be changed; empty: the tier's."
    )
    master_days: int | None = Field(
        default=None, description="Days until the master key is due; empty: the tier's."
    )
    archive_days: int | None = Field(
        default=None, description="Days until an archive key is due; empty: the tier's."
    )
    fips: bool = Field(default=False, description="Whether only approved algorithms may be used.")


class TenantBlock(Block):
    """A tenant: its tier, its regions, its sources and where its key is."""

    _block_type_name: ClassVar[str] = "Kryonix Tenant"
    _block_type_slug: ClassVar[str] = "kryonix-tenant"
    _description: ClassVar[str] = (
        "A tenant whose data is backed up. Saved under the tenant's id; 'kryonix flow' and"
        " 'kryonix deploy' write it from the tenant's settings."
    )
    _logo_url: ClassVar[HttpUrl] = logo_url()

    id: str = Field(description="The tenant's id: a DNS label of 1 to 40 characters.")
    tier: str = Field(description="What the tenant was promised; it decides the work pool.")
    regions: list[str] = Field(
        description="Names of the saved Kryonix Region blocks of this tenant, primary first."
    )
    sources: list[StoredSource] = Field(description="What is backed up, one entry a source.")
    key: KeyBlock = Field(description="Where the worker finds the tenant's root key.")
    residency: list[str] = Field(
        default_factory=list,
        description="Jurisdictions that may hold the tenant's data; empty means any.",
    )
    keys: StoredKeys = Field(
        default_factory=StoredKeys, description="The tenant's keys: where and how long."
    )
    limits: dict[str, int | str] = Field(
        default_factory=dict,
        description="The tenant's own limits below its tier's, such as bandwidth: 100 Mbit/s.",
    )

    transfers: list[dict[str, str]] = Field(
        default_factory=list,
        description=(
            "Why data of Brazil or the EU may be kept elsewhere: entries of a jurisdiction and the"
            " mechanism that allows it."
        ),
    )
    system_user: bool = Field(
        default=False,
        description="Whether the tenant's directories belong to a system account of its own.",
    )

    def to_settings(self) -> TenantSettings:
        """
        The tenant as the engine knows it, with its regions loaded by name.

        Raises InvalidName, ConfigError, and ValueError for a region block that is not there.
        """
        regions = tuple(saved(RegionBlock, name).to_settings() for name in self.regions)
        plain = {
            "id": self.id,
            "tier": self.tier,
            "regions": [region.to_plain() for region in regions],
            "sources": [source.to_plain() for source in self.sources],
            "residency": self.residency,
            "keys": self.keys.model_dump(),
            "limits": self.limits,
            "transfers": self.transfers,
            "isolation": {"system_user": self.system_user},
        }
        return replace(TenantSettings.from_plain(plain), regions=regions)


def stored_source(source: SourceSettings) -> StoredSource:
    """A source of the settings, as the block holds it."""
    return StoredSource(
        name=source.name,
        url=source.url,
        include=list(source.include),
        exclude=list(source.exclude),
        one_file_system=source.one_file_system,
        compression=source.compression,
    )
