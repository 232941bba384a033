"""The stored address of one tenant's bucket or directory in one region."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from blocks.logo import logo_url
from kryonix_backup.settings import RegionSettings, Secret


class RegionBlock(Block):
    """A tenant's bucket or directory in one region, with the credentials of its store."""

    _block_type_name: ClassVar[str] = "Kryonix Region"
    _block_type_slug: ClassVar[str] = "kryonix-region"
    _description: ClassVar[str] = (
        "One tenant's bucket or directory in one region. Everything that can call the Prefect API"
        " can read the credentials kept here: give them access to this one bucket."
    )
    _logo_url: ClassVar[HttpUrl] = logo_url()

    name: str = Field(
        description="Name of the region within its tenant; the first one is called primary."
    )
    url: str = Field(
        description=(
            "Address of the bucket or directory, such as s3://bucket?endpoint=http://host:port"
            " or file:///directory, without any credentials."
        )
    )
    access_key_id: str | None = Field(
        default=None,
        description="Access key of the store; without it the worker's environment is used.",
    )
    secret_access_key: SecretStr | None = Field(
        default=None, description="Secret that belongs to the access key."
    )

    jurisdiction: str | None = Field(
        default=None,
        description="Where the region is, such as BR, DE or EU; Amazon's own regions are known.",
    )
    private_endpoint: str | None = Field(
        default=None,
        description=(
            "Address by which the store's server is reached inside a private network, such as"
            " https://10.0.0.5; it is refused where it leads to a public address."
        ),
    )
    proxy: str | None = Field(
        default=None,
        description=(
            "HTTP proxy that is the only way to the store's server, such as"
            " http://proxy.internal:3128; its login is in the worker's environment."
        ),
    )
    ca_bundle: str | None = Field(
        default=None,
        description=(
            "File on every worker with the certificates, in PEM form, of the authorities that the"
            " store's server may be vouched for by."
        ),
    )

    def to_settings(self) -> RegionSettings:
        """The region as the engine knows it; raises InvalidName and ConfigError."""
        secret = self.secret_access_key
        region = RegionSettings.from_plain(
            {
                "name": self.name,
                "url": self.url,
                "jurisdiction": self.jurisdiction,
                "private_endpoint": self.private_endpoint,
                "proxy": self.proxy,
                "ca_bundle": self.ca_bundle,
            }
        )
        return replace(
            region,
            access_key_id=self.access_key_id,
            secret_access_key=None if secret is None else Secret(secret.get_secret_value()),
        )
