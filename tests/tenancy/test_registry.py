"""A tenant is registered whole and durably, or not at all."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.errors import (
    ConfigError,
    InvalidName,
    ResidencyViolation,
    TenantExists,
    TenantUnknown,
)
from kryonix_backup.model import RegionName, SourceName, Tier, tenant_id
from kryonix_backup.settings import KeySettings, RegionSettings, SourceSettings, TenantSettings
from kryonix_backup.tenancy.registry import Registry

HOSTILE = [
    "../x",
    "x" * 300,
    "",
    "é",
    "a'; drop table sessions; --",
    "A",
    "a_b",
    "-a",
    "a/b",
    ".",
    "a\n",
]


def settings(name: str, url: str | None = None) -> TenantSettings:
    home = "BR" if url is None else None
    return TenantSettings(
        tenant_id(name),
        Tier("enterprise"),
        (
            RegionSettings(
                RegionName("primary"), url or f"file:///backup/{name}", jurisdiction=home
            ),
        ),
        (SourceSettings(SourceName("files"), "files:///srv", exclude=("*.tmp",)),),
        () if home is None else (home,),
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home" / "tenants")


def test_what_was_registered_comes_back(registry: Registry) -> None:
    registry.add(settings("acme"))

    assert registry.load("acme") == settings("acme")
    assert registry.ids() == ["acme"]


def test_only_the_owner_can_read_it(registry: Registry, tmp_path: Path) -> None:
    registry.add(settings("acme"))

    directory = tmp_path / "home" / "tenants"
    assert [path.name for path in directory.iterdir()] == ["acme.json"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "acme.json").stat().st_mode) == 0o600


def test_a_tenant_is_registered_once(registry: Registry) -> None:
    registry.add(settings("acme"))

    with pytest.raises(TenantExists):
        registry.add(settings("acme", "file:///other"))
    assert registry.load("acme") == settings("acme")


def test_a_removed_tenant_is_unknown(registry: Registry) -> None:
    registry.add(settings("acme"))
    registry.remove("acme")

    assert registry.ids() == []
    with pytest.raises(TenantUnknown):
        registry.load("acme")
    with pytest.raises(TenantUnknown):
        registry.remove("acme")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("file:///backup/a", "file:///backup/x/../a/"),
        ("s3://bucket", "s3://bucket/"),
        (
            "s3://bucket/p?endpoint=http://127.0.0.1:9000&region=eu-1",
            "s3://bucket/p?region=eu-1&endpoint=http://127.0.0.1:9000/",
        ),
    ],
)
def test_no_two_tenants_share_a_region(registry: Registry, one: str, other: str) -> None:
    registry.add(settings("acme", one))

    with pytest.raises(ConfigError, match="region primary of tenant acme"):
        registry.add(settings("rival", other))
    assert registry.ids() == ["acme"]


def test_no_two_regions_of_a_tenant_are_the_same(registry: Registry) -> None:
    one = settings("acme")
    twice = TenantSettings(
        one.id,
        one.tier,
        (*one.regions, RegionSettings(RegionName("secondary"), one.primary.url)),
        one.sources,
    )

    with pytest.raises(ConfigError, match="its region primary"):
        registry.add(twice)


def test_a_link_is_another_spelling_of_the_same_directory(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    registry.add(settings("acme", f"file://{tmp_path / 'real'}"))

    with pytest.raises(ConfigError):
        registry.add(settings("rival", f"file://{tmp_path / 'link'}"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_reaches_no_path(registry: Registry, tmp_path: Path, name: str) -> None:
    for ask in (registry.load, registry.remove):
        with pytest.raises(InvalidName):
            ask(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", ["{", "[]", '{"id": "rival"}', '{"id": "acme"}'])
def test_a_damaged_file_is_named(registry: Registry, tmp_path: Path, body: str) -> None:
    registry.add(settings("acme"))
    (tmp_path / "home" / "tenants" / "acme.json").write_text(body)

    with pytest.raises(ConfigError, match=r"acme\.json cannot be used") as caught:
        registry.load("acme")
    assert "'kryonix catalog rebuild acme --region" in caught.value.next_step


def test_replacing_takes_the_new_settings(registry: Registry) -> None:
    registry.add(settings("acme"))
    registry.replace(settings("acme", "file:///elsewhere"))

    assert registry.load("acme").primary.url == "file:///elsewhere"


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")

    with pytest.raises(ConfigError, match="cannot be used"):
        Registry(tmp_path / "file" / "tenants").add(settings("acme"))


def test_no_secret_reaches_the_file(registry: Registry, tmp_path: Path) -> None:
    registry.add(settings("acme"))

    plain = json.loads((tmp_path / "home" / "tenants" / "acme.json").read_text())
    assert plain["regions"] == [
        {"name": "primary", "url": "file:///backup/acme", "jurisdiction": "BR"}
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("file:///backup/acme", "file:///backup/acme/packs"),
        ("file:///backup/acme/deep", "file:///backup/acme"),
        ("s3://bucket", "s3://bucket/acme"),
        ("s3://bucket/acme/deep", "s3://bucket/acme"),
        ("s3://bucket?endpoint=https://S3.example.com", "s3://bucket?endpoint=https://s3.example.com:443"),
    ],
)  # fmt: skip
def test_no_region_is_inside_another_ones(registry: Registry, one: str, other: str) -> None:
    registry.add(settings("acme", one))

    with pytest.raises(ConfigError, match="region primary of tenant acme"):
        registry.add(settings("rival", other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("file:///backup/acme", "file:///backup/acme-2"),
        ("s3://bucket/acme", "s3://bucket/acme-2"),
        ("s3://bucket", "s3://bucket-2"),
    ],
)
def test_names_that_begin_alike_are_two(registry: Registry, one: str, other: str) -> None:
    registry.add(settings("acme", one))
    registry.add(settings("acme-2", other))

    assert registry.ids() == ["acme", "acme-2"]


def test_a_region_outside_the_residency_is_not_registered(registry: Registry) -> None:
    one = settings("acme")
    outside = replace(one, residency=("EU",))

    for register in (registry.add, registry.replace):
        with pytest.raises(ResidencyViolation, match=r"is in BR.*tenant acme.*EU"):
            register(outside)
    assert registry.ids() == []


HSM = "pkcs11:///usr/lib/p11.so?token=t&label="
KMS = "kms://one?region=eu-west-1"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (KeySettings(store=HSM + "one"), KeySettings(store=HSM + "one")),
        (
            KeySettings(second=HSM + "one"),
            KeySettings(store="pkcs11:///lib/p11.so?label=one&token=t"),
        ),
        (KeySettings(store=KMS), KeySettings(second=KMS)),
        (KeySettings(), KeySettings(store=HSM + "one", second=HSM + "one")),
        (KeySettings(store=HSM.removesuffix("&label=")), KeySettings(second=HSM + "kryonix-acme")),
    ],
)
def test_no_master_is_of_two(registry: Registry, theirs: KeySettings, ours: KeySettings) -> None:
    """A rotation or a destruction of one would destroy what opens the other's data."""
    registry.add(replace(settings("acme"), keys=theirs))
    beta = replace(settings("beta"), keys=ours)

    for attempt in (registry.add, registry.replace):
        with pytest.raises(
            ConfigError, match=r"the master key .* of tenant beta is that of"
        ) as caught:
            attempt(beta)
        assert "label or alias" in caught.value.hint
    registry.replace(replace(settings("acme"), keys=theirs))
    registry.add(replace(settings("beta"), keys=KeySettings(store=HSM + "two", second=KMS + "2")))
