"""Which master follows, and what lets in to it; never one of another tenant."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from kryonix_backup.crypto.keystore import ManagedKeyStore
from kryonix_backup.errors import (
    ConfigError,
    InvalidName,
    KeyRefused,
    ResidencyViolation,
    StoreUnavailable,
    UsageError,
)
from kryonix_backup.model import tenant_id
from kryonix_backup.sdk.masters import (
    check_id,
    is_same,
    made,
    master_of,
    new_master,
    registered_with,
    second_master,
)
from kryonix_backup.sdk.tenants import add_tenant, connect, lost_keys, tenant_keys
from kryonix_backup.settings import KeySettings, RootKey, Secret, TenantSettings
from kryonix_backup.tenancy.registry import Registry
from kryonix_backup.testing.key_stores import HsmToken, SoftHsm
from tests.sdk.conftest import Machine

_numbers = itertools.count()


def _master(settings: TenantSettings, env: dict[str, str]) -> str:
    """What a new master by the environment is made of: what it wraps opens by that alone."""
    return new_master(settings, None, env).kind


def test_only_the_variables_of_a_new_master_name_it(machine: Machine) -> None:
    """KRYONIX_NEW_ACME_PASSPHRASE is what opens the keys of a tenant called new-acme."""
    of_another = {**machine.env, "KRYONIX_NEW_ACME_PASSPHRASE": "the one of tenant new-acme"}

    with pytest.raises(UsageError, match="no new passphrase"):
        _master(machine.settings, of_another)
    file = {**of_another, "KRYONIX_NEW_KEY_FILE": machine.env["KRYONIX_KEY_FILE"]}
    assert _master(machine.settings, file) == "key-file"


@pytest.mark.parametrize("name", ["new", "second", "acme-second"])
def test_a_tenant_whose_variables_would_be_anothers_is_refused(machine: Machine, name: str) -> None:
    with pytest.raises(InvalidName, match=name):
        add_tenant(replace(machine.settings, id=tenant_id(name)), env=machine.env)
    assert not (machine.root / "primary").exists() or not list((machine.root / "primary").iterdir())
    for other in ("new-york", "newton", "secondary", "acme"):
        check_id(tenant_id(other))


def test_what_cannot_be_registered_is_told_before_any_key_is_changed(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    other = replace(
        machine.settings, id=tenant_id("beta"), regions=(machine.region("of-beta"),),
        keys=KeySettings(second="kms://one?region=eu-west-1"),
    )  # fmt: skip
    other = replace(other, regions=(replace(other.regions[0], name=machine.settings.primary.name),))
    add_tenant(other, env={**machine.env, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    env = {**machine.env, "KRYONIX_KMS_ACCESS_KEY_ID": "a", "KRYONIX_KMS_SECRET_ACCESS_KEY": "b"}

    with pytest.raises(ConfigError, match="that of tenant beta"):
        tenant_keys("acme", env=env).move("kms://one?region=eu-west-1")

    assert tenant_keys("acme", env=machine.env).show()["generation"] == 1
    assert registered_with(tenant_id("nobody"), None, machine.env) is None


def test_a_kms_outside_of_the_jurisdictions_is_no_new_master(machine: Machine) -> None:
    settings = replace(machine.settings, residency=("BR",))

    with pytest.raises(ResidencyViolation):
        new_master(settings, "kms://?region=us-east-1", machine.env)


# ---------------------------------------------------------------------- two HSMs


@pytest.fixture
def tokens(softhsm: SoftHsm) -> tuple[HsmToken, HsmToken]:
    """Two HSMs, each with a PIN of its own."""
    one, two = (softhsm.make_token(f"masters {next(_numbers)}") for _ in range(2))
    assert one.pin != two.pin
    return one, two


@pytest.mark.service
def test_a_move_to_an_hsm_with_another_pin(
    machine: Machine, tokens: tuple[HsmToken, HsmToken]
) -> None:
    old, new = tokens
    env = {**machine.env, "KRYONIX_PIN": old.pin}
    add_tenant(replace(machine.settings, keys=KeySettings(store=old.url)), env=env)

    tenant_keys("acme", env={**env, "KRYONIX_NEW_PIN": new.pin}).move(new.url)

    after = {**machine.env, "KRYONIX_PIN": new.pin}
    assert tenant_keys("acme", env=after).show()["recipients"] == ["pkcs11"]
    emptied = new_master(machine.settings, old.url, env)
    assert isinstance(emptied, ManagedKeyStore)
    assert emptied.versions() == []


@pytest.mark.service
def test_a_second_hsm_with_another_pin(machine: Machine, tokens: tuple[HsmToken, HsmToken]) -> None:
    one, two = tokens
    settings = replace(machine.settings, keys=KeySettings(store=one.url, second=two.url))
    env = {**machine.env, "KRYONIX_PIN": one.pin, "KRYONIX_SECOND_PIN": "wrong",
           "KRYONIX_ACME_SECOND_PIN": two.pin}  # fmt: skip
    add_tenant(settings, env=env)

    report = tenant_keys("acme", env=env).prepare_data()

    assert report["recipients"] == ["pkcs11", "pkcs11"]
    second = second_master(settings, env)
    assert isinstance(second, ManagedKeyStore)
    assert len(second.versions()) == 1
    assert made(second) is second
    assert not is_same(second, new_master(settings, one.url, env))
    assert second_master(machine.settings, env) is None


# ---------------------------------------------------------------------- what is refused, and told


def test_a_key_store_abroad_is_refused_wherever_keys_would_go(machine: Machine) -> None:
    regions = tuple(replace(each, jurisdiction="BR") for each in machine.settings.regions)
    settings = replace(machine.settings, residency=("BR",), regions=regions)
    add_tenant(settings, env=machine.env)
    env = {**machine.env, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    abroad = "kms://?region=us-east-1"

    with pytest.raises(ResidencyViolation, match="the key store"):
        lost_keys("acme", abroad, env=env).recover([Secret("word")] * 2)
    Registry.at(env).replace(replace(settings, keys=KeySettings(second=abroad)))
    with pytest.raises(ResidencyViolation, match="the key store"):
        tenant_keys("acme", env=env).rotate_data()


def test_a_destruction_is_told_though_this_machine_keeps_no_record(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    (machine.root / "home/destroyed").write_text("in the way")

    assert tenant_keys("acme", env=machine.env).destroy().complete


def test_what_fips_promises_is_refused_of_a_registered_tenant_too(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    Registry.at(machine.env).replace(replace(machine.settings, keys=KeySettings(fips=True)))

    for begin in (tenant_keys, connect):
        with pytest.raises(KeyRefused, match="FIPS") as caught:
            begin("acme", env=machine.env)
        assert caught.value.tenant == "acme"


def test_shares_of_an_escrow_that_failed_are_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_tenant(machine.settings, env=machine.env)
    into = machine.root / "shares"

    def fail(*_: object) -> None:
        raise StoreUnavailable("cut off")

    monkeypatch.setattr("kryonix_backup.maintenance.key_care.seal_keyring", fail)
    with pytest.raises(StoreUnavailable) as caught:
        tenant_keys("acme", env=machine.env).escrow_shares(2, 3, into)

    assert f"Destroy the files in {into}" in caught.value.hint


@pytest.mark.parametrize("store", ["pkcs11:///p11.so?token=t&label=one", "kms://one?region=a-1"])
def test_no_variable_for_all_tenants_names_one_master(machine: Machine, store: str) -> None:
    env = {"KRYONIX_HOME": machine.env["KRYONIX_HOME"], "KRYONIX_PIN": "1",
           "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}  # fmt: skip
    common, own = {**env, "KRYONIX_KEY_STORE": store}, {**env, "KRYONIX_ACME_KEY_STORE": store}

    with pytest.raises(UsageError, match="for every tenant") as caught:
        add_tenant(machine.settings, env=common)
    assert "KRYONIX_ACME_KEY_STORE" in caught.value.hint
    root = RootKey.from_environment(own, machine.settings.id)
    assert store.startswith(master_of(machine.settings, root, own).kind)
