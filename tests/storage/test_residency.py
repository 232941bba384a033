"""Where a region is, and whether a tenant's data may be there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kryonix_backup.errors import InvalidUrl, ResidencyViolation
from kryonix_backup.model import RegionName, TenantId
from kryonix_backup.settings import RegionSettings, Transfer
from kryonix_backup.storage.residency import (
    ANYWHERE,
    Residency,
    amazon_jurisdiction,
    check_region,
    jurisdiction_of,
    within,
)


def region(url: str, said: str | None = None) -> RegionSettings:
    return RegionSettings(RegionName("primary"), url, jurisdiction=said)


def residency(*allowed: str, transfers: tuple[Transfer, ...] = ()) -> Residency:
    return Residency(TenantId("acme"), allowed, transfers)


@pytest.mark.parametrize(
    ("url", "said", "found"),
    [
        ("s3://acme?region=sa-east-1", None, "BR"),
        ("s3://acme", None, "US"),
        ("s3://acme?region=eu-west-2", None, "GB"),  # London is not in the EU
        ("s3://acme?region=eu-central-1", "EU", "DE"),
        ("s3://acme?region=mars-north-1", None, None),
        ("s3://acme?region=mars-north-1", "BR", "BR"),
        ("s3://acme?region=sa-east-1&endpoint=https://s3.sa-east-1.amazonaws.com", None, "BR"),
        ("s3://acme?region=sa-east-1&endpoint=https://b.vpce-1.s3.sa-east-1.vpce.amazonaws.com",
         None, "BR"),
        # The word beside a server that is not Amazon's says nothing, nor one that it contradicts.
        ("s3://acme?region=sa-east-1&endpoint=https://s3.example.com", None, None),
        ("s3://acme?region=sa-east-1&endpoint=https://s3.us-east-1.amazonaws.com", None, None),
        ("s3://acme?region=sa-east-1&endpoint=https://s3.sa-east-1.amazonaws.com.example.com",
         None, None),
        # However the name is written.
        ("s3://acme?region=sa-east-1&endpoint=HTTPS://S3.SA-EAST-1.AmazonAWS.com.", None, "BR"),
        ("file:///backup", None, None),
        ("file:///backup", "BR", "BR"),
    ],
)  # fmt: skip
def test_a_region_is_where_its_address_or_its_operator_says(
    url: str, said: str | None, found: str | None
) -> None:
    assert jurisdiction_of(region(url, said)) == found


def test_what_the_operator_says_cannot_move_a_region_of_amazon() -> None:
    with pytest.raises(ResidencyViolation, match="said to be in BR, and its address is in US"):
        jurisdiction_of(region("s3://acme?region=us-east-1", "BR"))


@pytest.mark.parametrize(
    "endpoint",
    ["https://s3.us-east-1.amazonaws.com.", "HTTPS://S3.US-EAST-1.AMAZONAWS.COM",
     "https://s3.us-east-1.amazonaws.com:443", "https://b.vpce-1.s3.us-east-1.vpce.amazonaws.com"],
)  # fmt: skip
@pytest.mark.parametrize("word", ["us-east-1", "sa-east-1"])
def test_however_its_name_is_written(endpoint: str, word: str) -> None:
    with pytest.raises(ResidencyViolation, match="said to be in BR, and its address is in US"):
        jurisdiction_of(region(f"s3://acme?region={word}&endpoint={endpoint}", "BR"))


@pytest.mark.parametrize(
    "endpoint",
    ["https://evil.example\\.s3.sa-east-1.amazonaws.com",  # the host ends at it, for some
     "https://evil.example%23.s3.sa-east-1.amazonaws.com",
     "https://evil.example%5c.s3.sa-east-1.amazonaws.com",
     "https://evil.example @s3.sa-east-1.amazonaws.com",
     "https://s3.sa-east-1.amazonaws.com%40evil.example",
     "https://s3.sa-east-1.amazonaws\N{FULLWIDTH FULL STOP}com",
     "https://s3.sa-east-1.amazonaws.com;evil.example",
     "https:s3.sa-east-1.amazonaws.com", "https:///s3.sa-east-1.amazonaws.com"],
)  # fmt: skip
def test_an_address_that_readers_read_differently_is_none(endpoint: str) -> None:
    with pytest.raises(InvalidUrl):
        jurisdiction_of(region(f"s3://acme?region=sa-east-1&endpoint={endpoint}"))


def privately(url: str, endpoint: str, said: str | None = None) -> RegionSettings:
    return replace(region(url, said), private_endpoint=endpoint)


def test_with_a_private_endpoint_the_data_is_where_that_is() -> None:
    """The address alone would say that everything goes to Brazil."""
    brazil = "s3://acme?region=sa-east-1"
    ours = "https://b.vpce-1.s3.sa-east-1.vpce.amazonaws.com"
    theirs = "https://b.vpce-1.s3.us-east-1.vpce.amazonaws.com"

    assert jurisdiction_of(privately(brazil, ours)) == "BR"
    assert jurisdiction_of(privately(brazil, "https://10.0.0.5")) is None
    assert jurisdiction_of(privately(brazil, "https://10.0.0.5", "BR")) == "BR"
    assert jurisdiction_of(privately(brazil, theirs)) is None
    with pytest.raises(ResidencyViolation, match="its private endpoint is in US"):
        jurisdiction_of(privately(brazil, theirs, "BR"))
    with pytest.raises(ResidencyViolation, match="its address is in BR"):
        jurisdiction_of(privately(brazil, "https://10.0.0.5", "US"))


def test_amazons_regions_are_in_one_table_for_buckets_and_keys() -> None:
    assert amazon_jurisdiction("sa-east-1") == "BR"
    assert amazon_jurisdiction("eu-central-2") == "CH"
    assert amazon_jurisdiction("nowhere-1") is None


def test_members_are_within_the_union_and_not_the_other_way() -> None:
    assert within("DE", "EU")
    assert within("EU", "EU")
    assert not within("EU", "DE")
    assert not within("GB", "EU")


def test_without_a_list_data_may_be_anywhere() -> None:
    check_region(region("file:///backup"), ANYWHERE)
    check_region(region("file:///backup"), residency())
    ANYWHERE.check("a key store", None)


def test_a_region_outside_is_refused_with_all_its_names() -> None:
    with pytest.raises(ResidencyViolation) as caught:
        check_region(region("s3://acme?region=us-east-1"), residency("BR"))

    for name in ("region primary", "s3://acme at", "is in US", "tenant acme", "BR only"):
        assert name in caught.value.message
    assert caught.value.exit_code == 19


def test_where_nobody_knows_is_outside() -> None:
    with pytest.raises(ResidencyViolation, match="no known jurisdiction") as caught:
        check_region(region("file:///backup"), residency("BR"))

    assert "--jurisdiction" in caught.value.hint


def test_a_key_store_is_judged_by_the_same_rule() -> None:
    residency("EU").check(
        "key store arn:aws:kms:eu-central-1:…", amazon_jurisdiction("eu-central-1")
    )
    with pytest.raises(ResidencyViolation, match=r"key store .* is in US"):
        residency("EU").check("key store kms", amazon_jurisdiction("us-east-1"))


@pytest.mark.parametrize("home", ["BR", "EU", "DE"])
def test_data_of_brazil_or_the_union_leaves_by_a_recorded_transfer_alone(home: str) -> None:
    with pytest.raises(ResidencyViolation, match="without a recorded transfer mechanism") as caught:
        residency(home, "US").check("region archive", "US")
    assert "transfers" in caught.value.hint

    recorded = (Transfer("US", "standard contractual clauses"),)
    residency(home, "US", transfers=recorded).check("region archive", "US")
    with pytest.raises(ResidencyViolation):
        residency(home, "CH", transfers=recorded).check("region archive", "CH")


def test_a_transfer_alone_allows_nothing() -> None:
    with pytest.raises(ResidencyViolation, match="BR only"):
        residency("BR", transfers=(Transfer("US", "contract"),)).check("region archive", "US")


def test_within_the_union_nothing_leaves_it() -> None:
    residency("EU").check("region archive", "DE")
    residency("US", "CA").check("region archive", "CA")
