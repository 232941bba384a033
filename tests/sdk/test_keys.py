"""A tenant's keys: masters in an HSM, and changes that are cut short or come at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from kryonix_backup.crypto.keys import KeyState, Owner, Purpose
from kryonix_backup.crypto.keystore import ManagedKeyStore
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.errors import (
    AlreadyRunning,
    KeyRefused,
    KeyUnusable,
    KryonixError,
    RolledBack,
    StoreUnavailable,
    UsageError,
)
from kryonix_backup.maintenance.key_care import KeyCare
from kryonix_backup.model import RegionName
from kryonix_backup.repository.keyrings import generations
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.keys import Keys
from kryonix_backup.sdk.tenants import add_tenant, lost_keys, tenant_keys
from kryonix_backup.settings import KeySettings, RegionSettings, RootKey, TenantSettings
from kryonix_backup.tenancy.registry import Registry
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.key_stores import HsmToken
from tests.sdk.conftest import Machine

pytestmark = pytest.mark.service

_numbers = itertools.count()


@dataclass
class Tenant:
    """Acme, registered, with its master in an HSM or in a key file."""

    machine: Machine
    env: dict[str, str]
    settings: TenantSettings

    def keys(self, clock: FixedClock | None = None) -> Keys:
        return tenant_keys("acme", env=self.env, clock=clock or FixedClock())

    def client(self) -> Client:
        settings = self.registered()
        root = RootKey.from_environment(self.env, settings.id, settings.keys.store)
        return Client(settings, root, env=self.env, clock=FixedClock())

    def registered(self) -> TenantSettings:
        return Registry.at(self.env).load(self.settings.id)

    def store_of(self, url: str) -> ManagedKeyStore:
        root = RootKey.from_environment(self.env, self.settings.id, url)
        opened = open_key_store(root, self.settings.id)
        assert isinstance(opened, ManagedKeyStore)
        return opened


def _label(token: HsmToken) -> str:
    """An address in the token that no other test uses."""
    return f"{token.url}&label=keys-{next(_numbers)}"


@pytest.fixture
def tenant_of(machine: Machine, token: HsmToken) -> Callable[[KeySettings], Tenant]:
    def make(keys: KeySettings) -> Tenant:
        env = {**machine.env, "KRYONIX_PIN": token.pin}
        settings = replace(machine.settings, keys=keys)
        add_tenant(settings, env=env, clock=FixedClock())
        return Tenant(machine, env, settings)

    return make


@pytest.fixture
def by_hsm(token: HsmToken, tenant_of: Callable[[KeySettings], Tenant]) -> Tenant:
    return tenant_of(KeySettings(store=_label(token)))


@pytest.fixture
def by_file(tenant_of: Callable[[KeySettings], Tenant]) -> Tenant:
    return tenant_of(KeySettings())


def _store(tenant: Tenant) -> ManagedKeyStore:
    url = tenant.registered().keys.store
    assert url is not None
    return tenant.store_of(url)


# ---------------------------------------------------------------------- rotation


def test_a_rotated_master_opens_and_its_versions_before_are_destroyed(by_hsm: Tenant) -> None:
    by_hsm.client().backup()
    before = _store(by_hsm).versions()

    report = by_hsm.keys().rotate_master()

    assert report["generation"] == 2
    after = _store(by_hsm).versions()
    assert len(before) == len(after) == 1
    assert before != after
    assert len(by_hsm.client().snapshots()) == 1


def test_a_key_file_is_renewed_by_its_owner(by_file: Tenant) -> None:
    with pytest.raises(UsageError, match="renewed by its owner") as caught:
        by_file.keys().rotate_master()
    assert "KRYONIX_NEW_KEY_FILE" in caught.value.hint


def test_what_is_due_is_rotated_and_nothing_else(by_hsm: Tenant) -> None:
    assert by_hsm.keys().rotate_due()["rotated"] == []
    late = FixedClock(NOON + timedelta(days=31))
    assert by_hsm.keys(late).rotate_due()["rotated"] == ["data"]
    assert by_hsm.keys(late).rotate_due()["rotated"] == []
    very_late = FixedClock(NOON + timedelta(days=91))
    assert by_hsm.keys(very_late).rotate_due()["rotated"] == ["master", "data"]
    a_year_late = FixedClock(NOON + timedelta(days=366))
    assert by_hsm.keys(a_year_late).rotate_due()["rotated"] == ["master", "data", "archive"]


def test_a_rotation_that_was_cut_short_is_completed_by_the_daily_one(
    by_hsm: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _cut(by_hsm, "settle", patch)
        with pytest.raises(StoreUnavailable):
            by_hsm.keys().rotate_master()
    assert len(_store(by_hsm).versions()) == 2

    assert by_hsm.keys().rotate_due()["rotated"] == []

    assert len(_store(by_hsm).versions()) == 1, "the master before opens no copy any more"
    owner = Owner(by_hsm.client().repository.id, by_hsm.settings.id)
    for region in by_hsm.settings.regions:
        assert generations(by_hsm.machine.held.store(region), owner) == [2]
    count = len(list(by_hsm.machine.held.store(by_hsm.settings.primary).list("audit/")))
    by_hsm.keys().rotate_due()
    after = len(list(by_hsm.machine.held.store(by_hsm.settings.primary).list("audit/")))
    assert after == count + 1, "a look alone, where nothing was cut short"


class Racing:
    """The master of one process, while another one rotates at a chosen moment."""

    def __init__(self, inner: ManagedKeyStore, moment: str, other: Callable[[], Any]) -> None:
        self._inner, self._moment, self._other = inner, moment, other
        self._done = False

    def __getattr__(self, name: str) -> Any:
        if name == self._moment and not self._done:
            self._done = True
            self._other()
        return getattr(self._inner, name)


@pytest.mark.parametrize("moment", ["renew", "wrap", "unwrap", "versions", "retire"])
def test_two_that_rotate_the_master_at_once_never_lose_the_keys(
    by_hsm: Tenant, moment: str
) -> None:
    keys = by_hsm.keys()
    keys.__dict__["_master"] = Racing(_store(by_hsm), moment, by_hsm.keys().rotate_master)

    try:
        keys.rotate_master()
    except (AlreadyRunning, KeyRefused) as error:
        assert error.tenant == "acme"

    assert by_hsm.client().snapshots() == []
    by_hsm.keys().rotate_master()
    assert len(_store(by_hsm).versions()) == 1


# ---------------------------------------------------------------------- move


def test_the_registry_remembers_the_new_store_and_the_old_master_is_destroyed(
    by_hsm: Tenant, token: HsmToken
) -> None:
    old, new = _store(by_hsm), _label(token)
    by_hsm.client().backup()

    by_hsm.keys().move(new)

    assert by_hsm.registered().keys.store == new
    assert old.versions() == []
    assert len(by_hsm.client().snapshots()) == 1
    assert by_hsm.keys().show()["recipients"] == ["pkcs11"]


def test_from_a_file_to_an_hsm_and_back(by_file: Tenant, token: HsmToken) -> None:
    by_file.keys().move(_label(token))
    hsm = _store(by_file)
    assert by_file.keys().show()["master"]["store"] == "pkcs11"

    by_file.env["KRYONIX_NEW_KEY_FILE"] = by_file.env["KRYONIX_KEY_FILE"]
    by_file.keys().move()

    assert by_file.registered().keys.store is None
    assert hsm.versions() == []
    assert by_file.client().snapshots() == []


@pytest.mark.parametrize("cut", ["wrap", "put", "settle", "destroy", "remember"])
def test_a_move_cut_at_any_step_is_completed_by_running_it_again(
    by_hsm: Tenant, token: HsmToken, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = _store(by_hsm), _label(token)
    with monkeypatch.context() as patch:
        _cut(by_hsm, cut, patch)
        with pytest.raises(StoreUnavailable):
            by_hsm.keys().move(new)

    by_hsm.keys().move(new)

    assert by_hsm.registered().keys.store == new
    assert old.versions() == []
    assert by_hsm.keys().show()["generation"] == 2
    for region in by_hsm.settings.regions:
        held = by_hsm.machine.held.store(region)
        owner = Owner(by_hsm.client().repository.id, by_hsm.settings.id)
        assert generations(held, owner) == [2]


def _cut(tenant: Tenant, step: str, patch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise StoreUnavailable("cut off")

    if step == "put":
        patch.setattr("kryonix_backup.maintenance.key_care.seal_keyring", fail)
    elif step == "settle":
        patch.setattr("kryonix_backup.maintenance.key_care.mirror", _nth(2, fail))
    elif step == "remember":
        patch.setattr(Registry, "replace", fail)
    else:
        patch.setattr(type(_store(tenant)), step, fail)


def _nth(count: int, fail: Callable[..., None]) -> Callable[..., None]:
    """What fails from its n-th call on, and does nothing before."""
    from kryonix_backup.repository.keyrings import mirror

    calls = itertools.count(1)

    def call(*args: Any) -> None:
        if next(calls) >= count:
            fail()
        mirror(*args)

    return call


def test_a_move_is_recorded_before_it_and_not_done_with_keys_that_were_set_back(
    by_file: Tenant,
) -> None:
    by_file.env["KRYONIX_NEW_KEY_FILE"] = by_file.env["KRYONIX_KEY_FILE"]
    before = _keyrings(by_file)["primary"]
    by_file.keys().move()
    book = by_file.client().repository.audit()
    told = [book.single(each).record().deed for each in sorted(book.names().singles)[-2:]]
    assert [(each.action, each.result) for each in told] == [
        ("keys move", "begun"),
        ("keys move", "ok"),
    ]

    store = by_file.machine.held.store(by_file.settings.primary)
    for name in _keyrings(by_file)["primary"]:
        store.delete(name)
    for name, body in before.items():
        store.put(name, body)
    with pytest.raises(RolledBack):
        by_file.keys().move()
    assert _keyrings(by_file)["primary"] == before


# ---------------------------------------------------------------------- two masters, and none


def test_looking_makes_no_second_master_and_the_first_change_does(
    tenant_of: Callable[[KeySettings], Tenant], token: HsmToken
) -> None:
    second = _label(token)
    tenant = tenant_of(KeySettings(second=second))

    assert tenant.keys().show()["recipients"] == ["key-file"]
    assert tenant.store_of(second).versions() == []
    assert tenant.keys().rotate_data()["recipients"] == ["key-file", "pkcs11"]
    assert len(tenant.store_of(second).versions()) == 1


def test_the_second_master_opens_and_recovers_when_the_first_is_lost(
    tenant_of: Callable[[KeySettings], Tenant], token: HsmToken
) -> None:
    first, second = _label(token), _label(token)
    tenant = tenant_of(KeySettings(store=first, second=second))
    tenant.client().backup()
    tenant.keys().rotate_data()
    tenant.store_of(first).destroy()
    with pytest.raises(KeyRefused):
        tenant.client().snapshots()
    regions = tenant.settings.regions[:1]
    alone = Client.from_regions(
        tenant.settings.id,
        regions,
        RootKey.from_environment({**tenant.env, "KRYONIX_KEY_STORE": second}, tenant.settings.id,
                                 second),
        env=tenant.env,
    )  # fmt: skip
    assert len(alone.snapshots()) == 1

    report = lost_keys("acme", None, env=tenant.env, clock=FixedClock()).recover()

    assert report["recipients"] == ["key-file", "pkcs11"]
    assert tenant.registered().keys == KeySettings(second=second)
    assert len(tenant.client().snapshots()) == 1


def test_without_a_second_master_it_recovers_nothing(by_file: Tenant) -> None:
    with pytest.raises(UsageError, match="no second master"):
        lost_keys("acme", None, env=by_file.env).recover()


def test_destroying_destroys_both_masters_and_makes_none(
    tenant_of: Callable[[KeySettings], Tenant], token: HsmToken
) -> None:
    first, second = _label(token), _label(token)
    tenant = tenant_of(KeySettings(store=first, second=second))
    tenant.keys().rotate_data()

    record = tenant.keys().destroy()
    again = tenant.keys().destroy()

    assert record.complete
    assert len(record.masters_destroyed) == 2
    assert again.complete
    assert again.masters_destroyed == ()
    assert tenant.store_of(first).versions() == tenant.store_of(second).versions() == []


# ---------------------------------------------------------------------- regions apart


def test_a_change_made_in_another_region_alone_comes_home(by_file: Tenant) -> None:
    west = by_file.settings.regions[1]
    bare = tenant_keys("acme", regions=[west], env=by_file.env, clock=FixedClock())
    bare.rotate_data()
    bare.rotate_data()
    assert by_file.keys().show()["generation"] == 1

    report = by_file.keys().rotate_data()

    assert report["generation"] == 4
    assert len([row for row in report["keys"] if row["purpose"] == "data"]) == 4


def test_keys_that_were_changed_apart_are_told_and_neither_is_lost(by_file: Tenant) -> None:
    names = [region.name for region in by_file.settings.regions]
    for region in by_file.settings.regions:
        tenant_keys("acme", regions=[region], env=by_file.env, clock=FixedClock()).rotate_data()
    before = _keyrings(by_file)

    with pytest.raises(KryonixError, match="changed in each region without the other"):
        by_file.keys().rotate_data()

    assert _keyrings(by_file) == before
    assert len(before) == len(names)


def _keyrings(tenant: Tenant) -> Mapping[str, dict[str, bytes]]:
    stores = {each.name: tenant.machine.held.store(each) for each in tenant.settings.regions}
    return {
        name: {info.name: store.get(info.name) for info in store.list("keys/")}
        for name, store in stores.items()
    }


def test_a_region_that_is_named_twice_is_refused(by_file: Tenant) -> None:
    one = RegionSettings(RegionName("west"), by_file.settings.primary.url)

    with pytest.raises(UsageError, match="named twice"):
        tenant_keys("acme", regions=[one, one], env=by_file.env)


# ---------------------------------------------------------------------- clients that stay open


def test_a_client_that_stays_open_goes_on_with_the_keys_of_now(by_file: Tenant) -> None:
    client = by_file.client()
    client.backup()
    by_file.keys().rotate_data()
    sealed = [each.objects for each in by_file.keys().reseal_cost("1")]
    (by_file.machine.files / "more").write_bytes(bytes(100_000))

    client.backup()

    assert [each.objects for each in by_file.keys().reseal_cost("1")] == sealed
    assert len(client.snapshots()) == 2
    by_file.keys().set_state("1", KeyState.SUSPENDED)
    with pytest.raises(KeyUnusable, match="suspended since"):
        client.verify()
    by_file.keys().set_state("1", KeyState.DECRYPT_ONLY)
    assert client.verify().status == "ok"
    by_file.keys().destroy()
    for begin in (client.snapshots, client.backup, client.verify):
        with pytest.raises(KeyUnusable, match="were destroyed"):
            begin()


def test_a_region_that_has_not_heard_of_a_compromise_is_sealed_anew_all_the_same(
    by_file: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Client(by_file.settings, by_file.machine.key, env=by_file.env, region="secondary")
    second.backup()
    with monkeypatch.context() as patch:
        _cut(by_file, "settle", patch)
        with pytest.raises(StoreUnavailable):
            by_file.keys().set_state("1", KeyState.COMPROMISED)

    report = by_file.keys().reseal("1")

    states = [(row["epoch"], row["state"]) for row in report["keys"] if row["purpose"] == "data"]
    assert states == [(1, "destroyed"), (2, "active")]
    assert second.verify().damage == (), "a client that was open before"
    assert second.backup().status == "complete"


def test_a_snapshot_that_was_opened_before_the_rotation_is_read_to_its_end(
    by_file: Tenant,
) -> None:
    by_file.client().backup()
    reading = by_file.client().cat("latest", "files/numbers")
    begun = next(reading)
    by_file.keys().rotate_data()
    KeyCare(
        by_file.settings.id,
        [by_file.machine.held.store(each) for each in by_file.settings.regions],
        open_key_store(by_file.machine.key, by_file.settings.id),
        FixedClock(),
    ).rotate(Purpose.DATA)

    assert (
        bytes(begun) + b"".join(bytes(piece) for piece in reading)
        == (by_file.machine.files / "numbers").read_bytes()
    )
