"""A tenant is registered when its repositories are there, and not before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kryonix_backup.errors import (
    ConfigError,
    InvalidName,
    InvalidUrl,
    KryonixError,
    SecretMissing,
    TenantExists,
    TenantUnknown,
    UsageError,
)
from kryonix_backup.model import TenantId
from kryonix_backup.sdk.tenants import (
    add_tenant,
    connect,
    list_tenants,
    remove_tenant,
    show_tenant,
    tenant_ids,
)
from tests.sdk.conftest import Machine


def test_a_tenant_that_was_added_can_be_connected_to(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)

    assert show_tenant("acme", machine.env) == machine.settings
    assert list_tenants(machine.env) == [machine.settings]
    assert tenant_ids(machine.env) == ["acme"]
    assert connect("acme", env=machine.env).snapshots() == []


def test_a_tenant_is_added_once(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)

    with pytest.raises(TenantExists):
        add_tenant(machine.settings, env=machine.env)


def test_forgetting_a_tenant_keeps_its_repository(machine: Machine) -> None:
    made = add_tenant(machine.settings, env=machine.env).client.repository.id

    assert remove_tenant("acme", machine.env) == machine.settings
    with pytest.raises(TenantUnknown):
        show_tenant("acme", machine.env)
    assert add_tenant(machine.settings, env=machine.env).client.repository.id == made


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("no key", SecretMissing),
        ("no such scheme of a region", InvalidUrl),
        ("no such scheme of a source", InvalidUrl),
        ("one directory for both regions", ConfigError),
    ],
)
def test_what_fails_registers_nothing(
    machine: Machine, wrong: str, error: type[KryonixError]
) -> None:
    settings, env = machine.settings, dict(machine.env)
    primary = machine.region("primary")
    if wrong == "no key":
        del env["KRYONIX_KEY_FILE"]
    elif wrong == "no such scheme of a region":
        settings = replace(settings, regions=(replace(primary, url="gopher://x"),))
    elif wrong == "no such scheme of a source":
        settings = replace(settings, sources=(replace(settings.sources[0], url="gopher://x"),))
    else:
        second = replace(machine.region("secondary"), url=primary.url)
        settings = replace(settings, regions=(primary, second))

    with pytest.raises(error):
        add_tenant(settings, env=env)

    assert tenant_ids(env) == []
    assert not (machine.root / "primary").exists()


def test_a_second_region_that_cannot_be_made_registers_nothing(machine: Machine) -> None:
    (machine.root / "file").write_text("not a directory")
    second = replace(machine.region("secondary"), url=f"file://{machine.root / 'file' / 'x'}")
    broken = replace(machine.settings, regions=(machine.region("primary"), second))

    with pytest.raises(KryonixError):
        add_tenant(broken, env=machine.env)
    assert tenant_ids(machine.env) == []

    add_tenant(machine.settings, env=machine.env)  # what the first try made is taken up


def test_two_tenants_share_no_region(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)

    with pytest.raises(ConfigError, match="has the address of"):
        add_tenant(replace(machine.settings, id=TenantId("rival")), env=machine.env)


def test_a_tenant_can_be_connected_to_without_being_registered(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env).client.backup()
    remove_tenant("acme", machine.env)

    client = connect("acme", regions=[machine.region("primary")], env=machine.env)

    assert client.settings == machine.settings


def test_a_region_is_named_once(machine: Machine) -> None:
    with pytest.raises(UsageError, match="twice"):
        connect("acme", regions=[machine.region("primary")] * 2, env=machine.env)


@pytest.mark.parametrize("name", ["../x", "", "é"])
def test_a_hostile_name_is_refused_before_anything(machine: Machine, name: str) -> None:
    for regions in ((), [machine.region("primary")]):
        with pytest.raises(InvalidName):
            connect(name, regions=regions, env=machine.env)
