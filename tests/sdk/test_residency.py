"""Every way to a tenant's data obeys its residency: settings, failover, restore, a bare machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kryonix_backup.errors import KryonixError, ResidencyViolation
from kryonix_backup.model import RegionName
from kryonix_backup.sdk.client import Client, RestoreRequest
from kryonix_backup.sdk.residency import (
    HERE,
    check_key_store,
    check_targets,
    reached_as,
    taken_over,
)
from kryonix_backup.sdk.tenants import add_tenant, connect, tenant_keys
from kryonix_backup.settings import RegionSettings, Secret, TenantSettings, Transfer
from kryonix_backup.tenancy.registry import Registry
from kryonix_backup.testing.clock import FixedClock
from tests.sdk.conftest import Machine


def resident(machine: Machine, *places: str | None) -> TenantSettings:
    """The tenant with data of Brazil, and its regions at these places."""
    regions = [
        replace(region, jurisdiction=place)
        for region, place in zip(machine.settings.regions, places, strict=True)
    ]
    return replace(machine.settings, regions=tuple(regions), residency=("BR",))


@pytest.mark.parametrize("place", [None, "US"])
def test_a_tenant_is_not_taken_on_with_a_region_outside(
    machine: Machine, place: str | None
) -> None:
    with pytest.raises(ResidencyViolation, match=r"region secondary \(file://"):
        add_tenant(resident(machine, "BR", place), env=machine.env)

    assert not (machine.root / "primary").exists()
    assert Registry.at(machine.env).ids() == []


def test_without_registering_it_is_refused_all_the_same(machine: Machine) -> None:
    """As on a worker, whose settings come from elsewhere."""
    with pytest.raises(ResidencyViolation) as caught:
        Client.onboard(resident(machine, "US", "BR"), machine.key, env=machine.env)

    assert caught.value.tenant == "acme"
    assert not (machine.root / "primary").exists()


def test_no_read_fails_over_to_a_region_outside(machine: Machine) -> None:
    Client.onboard(machine.settings, machine.key, env=machine.env)
    outside = Client(
        resident(machine, "BR", "US"), machine.key, env=machine.env, region="secondary"
    )

    for attempt in (outside.snapshots, outside.verify, outside.backup):
        with pytest.raises(ResidencyViolation, match="region secondary"):
            attempt()


def test_a_bare_machine_obeys_what_the_snapshot_says(machine: Machine) -> None:
    add_tenant(resident(machine, "BR", "BR"), env=machine.env).client.backup()
    bare = {**machine.env, "KRYONIX_HOME": str(machine.root / "bare")}
    copied = RegionSettings(RegionName("primary"), f"file://{machine.root / 'copied'}")
    (machine.root / "primary").rename(machine.root / "copied")

    with pytest.raises(ResidencyViolation, match="no known jurisdiction"):
        connect("acme", regions=[copied], env=bare)
    with pytest.raises(ResidencyViolation, match="is in US"):
        connect("acme", regions=[replace(copied, jurisdiction="US")], env=bare)
    found = connect("acme", regions=[replace(copied, jurisdiction="BR")], env=bare)

    assert found.settings.residency == ("BR",)
    assert found.settings.primary.jurisdiction == "BR"


def test_a_registered_tenant_obeys_its_registration_too(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env).client.backup()  # without any residency
    Registry.at(machine.env).replace(resident(machine, "BR", "BR"))
    region = replace(machine.region("primary"), name=RegionName("elsewhere"), jurisdiction="US")

    with pytest.raises(ResidencyViolation, match="region elsewhere"):
        connect("acme", regions=[region], env=machine.env)


def test_a_region_is_where_the_snapshot_knows_it_to_be(machine: Machine) -> None:
    settings = resident(machine, "BR", "BR")

    found = taken_over(settings, [machine.region("primary")])

    assert found == settings


def test_a_region_is_reached_as_the_settings_know_that_know_its_address(machine: Machine) -> None:
    known = RegionSettings(RegionName("primary"), "s3://acme", proxy="http://10.0.0.9:3128")
    settings = replace(machine.settings, regions=(known,))
    given = RegionSettings(RegionName("other"), "s3://acme")
    own = replace(given, proxy="http://10.0.0.8:3128")
    elsewhere = replace(given, url="s3://beta")

    assert reached_as(settings, [given]) == [replace(known, name=given.name)]
    assert reached_as(settings, [own, elsewhere]) == [own, elsewhere]


@pytest.mark.parametrize(
    "use",
    [connect, lambda *given, **more: tenant_keys(*given, **more).show()],
    ids=["data", "keys"],
)
def test_a_registered_tenants_region_named_again_keeps_its_network(
    machine: Machine, use: Callable[..., Any]
) -> None:
    """Or --region, with the address alone, would lead around its proxy."""
    known = RegionSettings(
        RegionName("primary"), "s3://acme?timeout=0.2&endpoint=http://127.0.0.1:1", "id",
        Secret("secret"), proxy="http://127.0.0.2:1",
    )  # fmt: skip
    Registry.at(machine.env).add(replace(machine.settings, regions=(known,)))
    env = {**machine.env, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}

    with pytest.raises(KryonixError, match=r"by way of http://127\.0\.0\.2:1"):
        use(
            "acme",
            regions=[RegionSettings(RegionName("primary"), known.url)],
            env=env,
            clock=FixedClock(),
        )


def test_a_restore_brings_nothing_out(machine: Machine) -> None:
    client = add_tenant(resident(machine, "BR", "BR"), env=machine.env).client
    client.backup()
    out = RestoreRequest(to={"files": f"files://{machine.root / 'out'}"})

    with pytest.raises(ResidencyViolation, match="target files://") as caught:
        client.restore(out)
    assert HERE in caught.value.hint
    abroad = Client(client.settings, machine.key, env={**machine.env, HERE: "US"})
    for request in (out, RestoreRequest(overwrite=True)):
        with pytest.raises(ResidencyViolation, match="is in US"):
            abroad.restore(request)
    home = Client(client.settings, machine.key, env={**machine.env, HERE: "br"})

    assert home.restore(out).status == "complete"


def test_a_source_may_go_back_to_where_it_came_from(machine: Machine) -> None:
    settings = resident(machine, "BR", "BR")

    check_targets(settings, {"files": machine.settings.sources[0].url}, {})
    check_targets(replace(settings, residency=()), {"files": "files:///anywhere"}, {})


def test_a_recorded_transfer_lets_a_copy_out(machine: Machine) -> None:
    settings = replace(resident(machine, "BR", "US"), residency=("BR", "US"))
    with pytest.raises(ResidencyViolation, match="without a recorded transfer"):
        add_tenant(settings, env=machine.env)

    recorded = (Transfer("US", "standard contractual clauses of 2024"),)
    client = add_tenant(replace(settings, transfers=recorded), env=machine.env).client
    client.backup()

    assert client.newest_settings() == client.settings  # the record travels with the data


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        (None, True),
        ("kms://?region=sa-east-1", True),
        ("kms://?region=us-east-1", False),
        ("kms://?region=sa-east-1&endpoint=https://kms.example.net", False),
        ("pkcs11:///usr/lib/softhsm/libsofthsm2.so?token=t", True),
    ],
)
def test_keys_stay_in_the_tenants_jurisdictions(
    machine: Machine, url: str | None, *, allowed: bool
) -> None:
    settings = resident(machine, "BR", "BR")

    if allowed:
        check_key_store(settings, url)
    else:
        with pytest.raises(ResidencyViolation, match="key store"):
            check_key_store(settings, url)
    check_key_store(replace(settings, residency=()), url)
