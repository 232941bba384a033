"""After the keys are destroyed nothing opens anywhere, and the record says only what was tried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kryonix_backup.crypto.keys import KeyState, Owner, Purpose
from kryonix_backup.crypto.stores.root import RootKeyStore, master_from
from kryonix_backup.errors import (
    KeyStoreUnavailable,
    KeyUnusable,
    KryonixError,
    RepositoryError,
    StoreUnavailable,
)
from kryonix_backup.maintenance.destruction import Destruction, destroy_keys
from kryonix_backup.maintenance.key_care import KeyCare
from kryonix_backup.model import TenantId
from kryonix_backup.repository.keyrings import mirror
from kryonix_backup.repository.layout import DESTROYED
from kryonix_backup.repository.repository import Repository
from kryonix_backup.settings import RootKey, Secret
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import (
    ACME,
    RecordingStore,
    back_up,
    key_file,
    new_repository,
    reopened,
)
from kryonix_backup.testing.sources import MemorySource
from tests.maintenance.conftest import FIRST, read_all

GONE = StoreUnavailable("no route to two")


@dataclass
class Tenant:
    """Two regions that hold the same, and a client that was open before."""

    one: RecordingStore = field(default_factory=lambda: RecordingStore("memory://one"))
    two: RecordingStore = field(default_factory=lambda: RecordingStore("memory://two"))

    def __post_init__(self) -> None:
        repository = new_repository(self.one)
        self.owner = Owner(repository.id, ACME)
        back_up(repository, MemorySource(FIRST))
        mirror(self.one, self.two, self.owner)
        for name, body in self.one.objects.items():
            self.two.objects.setdefault(name, body)
        self.before = {store.address: dict(store.objects) for store in (self.one, self.two)}

    def destroy(self, *, two: ObjectStore | None = None, **masters: Any) -> Destruction:
        stores: dict[str, ObjectStore] = {"one": self.one, "two": two or self.two}
        return destroy_keys(ACME, stores, masters or {"key-file": key_file()}, "ann", FixedClock())


@pytest.fixture
def tenant() -> Tenant:
    return Tenant()


def _readable(store: ObjectStore, tenant: TenantId, *masters: RootKeyStore) -> Iterator[str]:
    for master in masters:
        try:
            yield from (path for _, path, _ in read_all(Repository.open(store, tenant, master)))
        except RepositoryError:
            continue


def test_nothing_opens_in_any_region_and_everything_else_stays(tenant: Tenant) -> None:
    record = tenant.destroy()

    assert record.complete
    for store, proof in zip((tenant.one, tenant.two), record.regions, strict=True):
        assert (proof.opened_before, proof.opens, proof.keys_removed) == (True, False, 1)
        assert "KeyUnusable" in proof.evidence
        kept = {name for name in tenant.before[store.address] if not name.startswith("keys/")}
        assert set(store.objects) == kept | {DESTROYED}
        assert proof.objects_left == len(kept) - 1  # but for format.json
        with pytest.raises(KeyUnusable, match="were destroyed"):
            reopened(store)


def test_the_record_is_plain_and_beside_what_stays(tenant: Tenant) -> None:
    record = tenant.destroy()

    for store in (tenant.one, tenant.two):
        stored = json.loads(store.objects[DESTROYED])
        assert stored == json.loads(json.dumps(record.to_plain()))
    assert (stored["complete"], stored["by"], stored["time"]) == (True, "ann", NOON.isoformat())
    assert any("keeps versions" in remark for remark in stored["remarks"])
    assert any("key file opens copies" in remark for remark in stored["remarks"])


def test_other_tenants_keys_and_masters_open_none_of_it(tenant: Tenant) -> None:
    theirs = RecordingStore()
    new_repository(theirs, TenantId("globex"))
    tenant.destroy()

    for name, body in theirs.objects.items():
        tenant.one.objects.setdefault(name, body)  # with all of their keyrings beside it
    for who in (ACME, TenantId("globex")):
        assert not list(_readable(tenant.one, who, key_file(), key_file(8)))


def test_a_client_that_was_open_before_begins_nothing_more(tenant: Tenant) -> None:
    reading, other = reopened(tenant.one), reopened(tenant.two)
    assert list(read_all(reading))
    snapshot = reading.snapshot("latest")

    tenant.destroy()

    for client in (reading, other):
        for begin in (
            lambda client=client: client.snapshot("latest"),
            lambda client=client: list(client.snapshots()),
            lambda client=client: client.reader(),
            lambda client=client: client.writer(),
            lambda client=client: client.audit(),
            lambda client=client: client.publish(snapshot),
        ):
            with pytest.raises(KeyUnusable, match="were destroyed"):
                begin()


def test_a_region_that_does_not_answer_leaves_the_record_incomplete_until_it_does(
    tenant: Tenant,
) -> None:
    away = FaultyStore(tenant.two, list=[GONE] * 50, replace=[GONE] * 50)

    record = tenant.destroy(two=away)

    assert not record.complete
    one, two = record.regions
    assert (one.opens, two.opens, two.keys_removed) == (False, None, 0)
    assert two.evidence == "not reached: no route to two"
    assert json.loads(tenant.one.objects[DESTROYED])["complete"] is False
    assert reopened(tenant.two), "that region was not reached"

    again = tenant.destroy()
    assert again.complete
    assert again.regions[0].opened_before is False
    assert again.regions[1].keys_removed == 1


@pytest.mark.parametrize("cut", range(8))
def test_cut_at_any_request_and_run_again_it_ends_right(tenant: Tenant, cut: int) -> None:
    faults = [None] * cut + [GONE] * 50
    away = FaultyStore(tenant.two, list=faults, delete=faults, replace=faults, get=faults)

    record = tenant.destroy(two=away)

    assert record.regions[1].opens is not True
    opens = "keys/" in "".join(tenant.two.objects)
    assert not (record.complete and opens), "a region that still opens was called done"
    assert tenant.destroy().complete


def test_what_fails_while_it_is_tried_proves_nothing(tenant: Tenant) -> None:
    # The keys are gone, and only the look whether it still opens has no answer.
    failing = FaultyStore(tenant.two, get=[None, None, None, GONE])

    proof = tenant.destroy(two=failing).regions[1]

    assert (proof.keys_removed, proof.opens) == (1, None)
    failing.assert_all_faults_fired()


def test_nobody_brings_destroyed_keys_back_from_another_region(tenant: Tenant) -> None:
    away = FaultyStore(tenant.two, list=[GONE] * 50, replace=[GONE] * 50)
    tenant.destroy(two=away)

    for stores in ((tenant.one, tenant.two), (tenant.two, tenant.one)):
        care = KeyCare(ACME, stores, key_file(), FixedClock())
        for change in (
            care.settle,
            lambda care=care: care.rotate(Purpose.DATA),
            lambda care=care: care.rotate_master(key_file(8)),
        ):
            with pytest.raises(KeyUnusable, match="were destroyed"):
                change()
    assert not tenant.one.names("keys/")


class Managed:
    """A key store that keeps its master, and may be away."""

    kind = "hsm"
    address = "hsm:acme"

    def __init__(self, away: int = 0) -> None:
        self.versions_left = ["v1", "v2"]
        self.away = away
        self._inner = key_file()

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        return self._inner.wrap(key, context)

    def unwrap(self, recipient: Any, context: bytes) -> Secret:
        return self._inner.unwrap(recipient, context)

    def renew(self) -> str:
        raise AssertionError("whoever destroys makes no new key")

    def versions(self) -> list[str]:
        return list(self.versions_left)

    def retire(self, keep: str) -> list[str]:
        raise AssertionError(keep)

    def destroy(self) -> list[str]:
        if self.away:
            self.away -= 1
            raise KeyStoreUnavailable("hsm:acme does not answer")
        gone, self.versions_left = self.versions_left, []
        return gone


def test_masters_that_a_key_store_keeps_are_destroyed_too(tenant: Tenant) -> None:
    first, second = Managed(), Managed()

    record = tenant.destroy(hsm=first, second=second)

    assert record.masters_destroyed == ("v1", "v2", "v1", "v2")
    assert record.key_store == "hsm, hsm"
    assert not any("destroy it" in remark for remark in record.remarks)


def test_a_key_store_that_is_away_is_told_and_destroyed_the_next_time(tenant: Tenant) -> None:
    away, second = Managed(away=1), Managed()

    record = tenant.destroy(hsm=away, second=second)

    assert not record.complete
    assert record.masters_left == ("hsm: hsm:acme does not answer",)
    assert record.masters_destroyed == ("v1", "v2"), "the second one's"
    assert not tenant.one.names("keys/"), "the keyrings went all the same"
    assert tenant.destroy(hsm=away, second=second).complete


def test_a_suspended_key_is_destroyed_with_the_others(tenant: Tenant) -> None:
    KeyCare(ACME, [tenant.one, tenant.two], key_file(), FixedClock()).set_state(
        "1", KeyState.SUSPENDED
    )

    assert tenant.destroy().complete


def test_the_wrong_master_destroys_and_the_record_says_that_it_never_opened(
    tenant: Tenant,
) -> None:
    phrase = master_from(RootKey(passphrase=Secret("of somebody else")))

    record = tenant.destroy(passphrase=phrase)

    assert [proof.opened_before for proof in record.regions] == [False, False]


def test_every_error_of_a_region_is_one_that_we_explain(tenant: Tenant) -> None:
    faults = [GONE] * 50
    with pytest.raises(KryonixError):
        reopened(FaultyStore(tenant.one, list=faults, get=faults))


def test_what_a_kms_keeps_for_a_week_is_in_the_record(tenant: Tenant) -> None:
    class Kms(RootKeyStore):
        kind = "kms"

    kms = Kms(RootKey(key_file=Secret(b"k" * 32)))

    assert any("KMS keeps" in each for each in tenant.destroy(kms=kms).remarks)
    assert not any("KMS" in each for each in Tenant().destroy().remarks)
