"""A tenant's regions become its own alone together, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError, RepositoryExists, SecretMissing
from kryonix_backup.model import RegionName, TenantId
from kryonix_backup.sdk.isolation import isolate_tenant, kept_pair, undo_isolation
from kryonix_backup.sdk.tenants import add_tenant
from kryonix_backup.settings import RegionSettings, TenantSettings
from kryonix_backup.tenancy.registry import Registry
from kryonix_backup.testing.s3_servers import S3Server
from tests.sdk.conftest import Machine


def in_buckets(machine: Machine, server: S3Server, *names: str) -> TenantSettings:
    regions = [RegionSettings(RegionName("primary" if not i else f"r{i}"), server.url(name))
               for i, name in enumerate(names)]  # fmt: skip
    return replace(machine.settings, regions=tuple(regions))


def operator(server: S3Server, *regions: str) -> dict[str, str]:
    return {
        f"KRYONIX_{region.upper()}_ADMIN_{name}": value
        for region in regions
        for name, value in (
            ("ACCESS_KEY_ID", server.root.access_key_id),
            ("SECRET_ACCESS_KEY", server.root.secret_access_key),
        )
    }


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_directories_are_closed_as_a_tenant_is_taken_on(machine: Machine) -> None:
    (machine.root / "secondary").mkdir(mode=0o755)

    done = add_tenant(machine.settings, env=machine.env).isolation

    assert [(each.region, each.made) for each in done] == [
        ("primary", ("directory",)),
        ("secondary", ("mode",)),
    ]
    assert {mode(machine.root / name) for name in ("primary", "secondary")} == {0o700}
    assert [each.made for each in isolate_tenant(machine.settings, env=machine.env)] == [(), ()]


def test_what_fails_later_takes_it_back(machine: Machine) -> None:
    there = replace(machine.region("secondary"), name=RegionName("primary"))
    rival = replace(machine.settings, id=TenantId("rival"), regions=(there,))
    add_tenant(rival, env=machine.env)
    Registry.at(machine.env).remove("rival")  # its repository stays
    mine = replace(
        machine.settings, regions=(replace(machine.region("new"), name=RegionName("primary")),
                                   machine.region("secondary")),
    )  # fmt: skip

    with pytest.raises(RepositoryExists):
        add_tenant(mine, env=machine.env)

    assert not (machine.root / "new").exists()
    assert (machine.root / "secondary/format.json").exists()


def test_a_repository_that_was_used_is_never_removed(machine: Machine) -> None:
    added = add_tenant(machine.settings, env=machine.env)
    added.client.backup()

    undo_isolation(machine.settings, added.isolation, env=machine.env)

    assert added.client.snapshots()
    assert not (machine.root / "secondary").exists()


def test_there_may_be_nothing_to_rotate(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="no key pair that could be rotated"):
        isolate_tenant(machine.settings, rotate=True, env=machine.env)


def test_half_an_operators_pair_is_named(machine: Machine) -> None:
    region = RegionSettings(RegionName("primary"), "s3://acme")
    env = machine.env | {"KRYONIX_PRIMARY_ADMIN_ACCESS_KEY_ID": "x"}

    with pytest.raises(SecretMissing, match="KRYONIX_PRIMARY_ADMIN_SECRET_ACCESS_KEY is not set"):
        isolate_tenant(replace(machine.settings, regions=(region,)), env=env)


@pytest.mark.service
def test_a_bucket_of_its_own_needs_no_credentials_in_the_environment(
    machine: Machine, seaweedfs: S3Server
) -> None:
    settings = in_buckets(machine, seaweedfs, "sdk-own")
    env = machine.env | operator(seaweedfs, "primary")

    client = add_tenant(settings, env=env).client
    client.backup()

    connected = Registry.at(machine.env).load("acme")
    assert connected == settings
    pair = kept_pair(TenantId("acme"), settings.primary, machine.env)
    assert pair is not None
    assert pair[0] not in str(settings.to_plain())
    everything = b"".join(
        path.read_bytes() for path in Path(env["KRYONIX_HOME"]).rglob("*") if path.is_file()
    )
    for secret in operator(seaweedfs, "primary").values():
        assert secret.encode() not in everything


@pytest.mark.service
def test_a_second_region_that_fails_takes_the_first_ones_bucket_back(
    machine: Machine, seaweedfs: S3Server
) -> None:
    settings = in_buckets(machine, seaweedfs, "sdk-first", "sdk-second")
    env = machine.env | operator(seaweedfs, "primary")  # none for the second, and no other pair

    with pytest.raises(SecretMissing, match="region r1"):
        add_tenant(settings, env=env)

    assert kept_pair(TenantId("acme"), settings.primary, env) is None
    again = add_tenant(settings, env=env | operator(seaweedfs, "r1"))
    assert [each.made[0] for each in again.isolation] == ["bucket", "bucket"]
