"""Every block says what each of its fields is for, and shows no secret."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.blocks.core import Block
from pydantic import BaseModel, SecretStr

from blocks.key import KeyBlock
from blocks.region import RegionBlock
from blocks.tenant import StoredSource, TenantBlock
from kryonix_backup.errors import InvalidUrl

BLOCKS = [TenantBlock, RegionBlock, KeyBlock]


@pytest.mark.parametrize("model", [*BLOCKS, StoredSource], ids=lambda model: model.__name__)
def test_every_field_is_described_in_a_sentence(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_a_block_has_a_slug_a_description_and_a_picture(block: type[Block]) -> None:
    assert block.get_block_type_slug() == f"kryonix-{block.__name__.removesuffix('Block').lower()}"
    assert (block.get_description() or "").endswith(".")
    assert str(block._logo_url).startswith("http")


def test_no_secret_shows_in_a_repr_or_in_json() -> None:
    region = RegionBlock(
        name="primary", url="s3://b", access_key_id="AK", secret_access_key=SecretStr("hush")
    )

    assert "hush" not in repr(region) + str(region) + region.model_dump_json()
    assert "hush" not in repr(region.to_settings())


def test_what_a_region_says_of_its_network_comes_back() -> None:
    plain: dict[str, Any] = {
        "name": "primary", "url": "s3://b", "jurisdiction": "BR", "proxy": "http://10.0.0.9:3128",
        "private_endpoint": "https://10.0.0.5", "ca_bundle": "/etc/kryonix/bank.pem",
    }  # fmt: skip

    assert RegionBlock(**plain).to_settings().to_plain() == plain
    with pytest.raises(InvalidUrl):
        RegionBlock(**{**plain, "proxy": "http://backup:hunter2@10.0.0.9:3128"}).to_settings()


def test_a_key_block_has_no_field_for_a_key() -> None:
    """What any client of the API may read must not open a repository."""
    assert set(KeyBlock.model_fields) == {
        "passphrase_variable", "passphrase_file", "key_file", "store", "pin_variable", "pin_file",
    }  # fmt: skip
    assert "Never write a passphrase, PIN or key here" in (KeyBlock.get_description() or "")
