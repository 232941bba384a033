"""A change of keys happened in every region or is completed by the next, wherever it is cut."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from kryonix_backup.crypto.keyring import Keyring
from kryonix_backup.crypto.keys import KeyState, Owner, Purpose
from kryonix_backup.crypto.stores.escrow import SharesKeyStore, split
from kryonix_backup.crypto.stores.root import master_from
from kryonix_backup.errors import (
    AlreadyRunning,
    Damaged,
    KeyRefused,
    KeyUnusable,
    StoreUnavailable,
)
from kryonix_backup.maintenance.destruction import destroy_keys
from kryonix_backup.maintenance.key_care import KeyCare, Schedule
from kryonix_backup.model import Blob
from kryonix_backup.repository.keyrings import generations, load_keyring, mirror
from kryonix_backup.repository.layout import keyring_name
from kryonix_backup.repository.repository import Repository
from kryonix_backup.settings import RootKey, Secret
from kryonix_backup.storage.memory import MemoryStore
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import ACME, RecordingStore, key_file, new_repository

OLD, NEW = key_file(7), key_file(8)


class Regions:
    """A tenant's repository in two regions, and what became of its keys."""

    def __init__(self) -> None:
        self.primary, self.second = RecordingStore("memory://one"), RecordingStore("memory://two")
        self.owner = Owner(new_repository(self.primary).id, ACME)
        mirror(self.primary, self.second, self.owner)
        self.clock = FixedClock()

    def care(self, fill: int = 7, *stores: ObjectStore) -> KeyCare:
        stores = stores or (self.primary, self.second)
        return KeyCare(ACME, stores, key_file(fill), self.clock)

    def assert_same(self, fill: int, generation: int) -> None:
        """Every region has this generation alone, for this master."""
        for store in (self.primary, self.second):
            assert generations(store, self.owner) == [generation]
            assert load_keyring(store, self.owner, key_file(fill)).generation == generation
            assert Repository.open(store, ACME, key_file(fill)).id == self.owner.repository
        assert self.primary.names("keys/") == self.second.names("keys/")


@pytest.fixture
def regions() -> Regions:
    return Regions()


def _keep(store: ObjectStore, fill: int, chunk: bytes) -> None:
    with Repository.open(store, ACME, key_file(fill)).writer() as writer:
        writer.lane("store").keep([chunk])


def _data(keyring: Keyring) -> list[tuple[int, KeyState]]:
    return [
        (record.epoch, record.state) for record in keyring.records if record.purpose is Purpose.DATA
    ]


def test_a_new_epoch_seals_and_the_old_ones_open(regions: Regions) -> None:
    _keep(regions.primary, 7, b"of the first epoch")
    before = regions.care().keyring()

    after = regions.care().rotate(Purpose.DATA)

    assert _data(after) == [(1, KeyState.DECRYPT_ONLY), (2, KeyState.ACTIVE)]
    assert [each.id for each in after.records][: len(before.records)] == [
        each.id for each in before.records
    ]
    regions.assert_same(7, 2)
    _keep(regions.primary, 7, b"of the second epoch")
    again = Repository.open(regions.primary, ACME, OLD)
    for chunk in (b"of the first epoch", b"of the second epoch"):
        assert again.reader().read(again.namer(chunk)) == chunk


def test_a_prepared_key_is_everywhere_before_it_seals(regions: Regions) -> None:
    for _ in range(2):
        before = regions.care().prepare(Purpose.DATA)

    assert _data(before) == [(1, KeyState.ACTIVE), (2, KeyState.PRE_ACTIVE)]
    prepared = before.records[-1].id
    _keep(regions.primary, 7, b"by the first still")
    again = Repository.open(regions.primary, ACME, OLD)
    assert {pack.header.key_id for pack in again.load_index().packs().values()} != {prepared}
    regions.clock.sleep(5)
    after = regions.care().rotate(Purpose.DATA)
    assert _data(after) == [(1, KeyState.DECRYPT_ONLY), (2, KeyState.ACTIVE)]
    assert (after.records[-1].id, after.records[-1].since) == (
        prepared,
        NOON + timedelta(seconds=5),
    )


def test_a_new_master_opens_and_the_old_one_does_not(regions: Regions) -> None:
    secrets = {each.id: each.secret.reveal() for each in regions.care().keyring().records}
    packs = dict(regions.primary.objects)
    regions.clock.sleep(100)

    after = regions.care().rotate_master(NEW)

    assert {each.id: each.secret.reveal() for each in after.records} == secrets
    assert after.master_since == NOON + timedelta(seconds=100)
    regions.assert_same(8, 2)
    with pytest.raises(KeyRefused):
        Repository.open(regions.primary, ACME, OLD)
    for name, body in packs.items():
        if not name.startswith("keys/"):
            assert regions.primary.objects[name] == body  # no data is rewritten


def test_a_new_master_may_live_elsewhere(regions: Regions) -> None:
    phrase = master_from(RootKey(passphrase=Secret("a long one")))

    regions.care().rotate_master(phrase)

    assert Repository.open(regions.second, ACME, phrase).id == regions.owner.repository
    KeyCare(ACME, [regions.primary, regions.second], phrase, regions.clock).rotate_master(OLD)
    regions.assert_same(7, 3)


@pytest.mark.parametrize("cut", range(6))
@pytest.mark.parametrize("what", ["master", "data"])
def test_cut_at_any_step_and_run_again_it_ends_right(regions: Regions, what: str, cut: int) -> None:
    gone = StoreUnavailable("gone")
    one = FaultyStore(regions.primary, put=[None] * cut + [gone] * 9, delete=[None] * cut + [gone])
    two = FaultyStore(
        regions.second, put=[None] * max(0, cut - 1) + [gone] * 9, delete=[None] * cut + [gone]
    )
    care = regions.care(7, one, two)
    changes = {
        "data": lambda: care.rotate(Purpose.DATA),
        "master": lambda: care.rotate_master(NEW),
    }
    try:
        changes[what]()
    except StoreUnavailable:
        opened = sum(_opens(regions.primary, fill) for fill in (7, 8))
        assert opened == 1  # by one master, never by both or none

    if what == "data":
        regions.care().settle()
        generation = generations(regions.primary, regions.owner)[-1]
        regions.assert_same(7, generation)
    else:
        regions.care().rotate_master(NEW)
        regions.assert_same(8, 2)


def _opens(store: ObjectStore, fill: int) -> bool:
    try:
        Repository.open(store, ACME, key_file(fill))
    except KeyRefused:
        return False
    return True


def test_of_two_changes_at_once_one_is_told(regions: Regions) -> None:
    class Late(MemoryStore):
        """Another change comes between its reading and its writing."""

        def put(self, name: str, body: Blob) -> None:
            if name.startswith("keys/") and name.endswith("2"):
                regions.care().rotate(Purpose.DATA)
            super().put(name, body)

    late = Late()
    late.objects = regions.primary.objects

    with pytest.raises(AlreadyRunning):
        regions.care(7, late, regions.second).rotate(Purpose.DATA)
    regions.assert_same(7, 2)


def test_a_change_that_two_others_overtook_is_told_and_theirs_stand(regions: Regions) -> None:
    class Overtaken(MemoryStore):
        """Two changes come between its reading and its writing, and tidy up."""

        def put(self, name: str, body: Blob) -> None:
            if name.startswith("keys/") and name.endswith("2"):
                regions.care().rotate(Purpose.DATA)
                regions.care().rotate(Purpose.DATA)
            super().put(name, body)

    late = Overtaken()
    late.objects = regions.primary.objects

    with pytest.raises(AlreadyRunning, match="at the same moment"):
        regions.care(7, late, regions.second).set_state("1", KeyState.COMPROMISED)
    regions.assert_same(7, 3)
    assert _data(regions.care().keyring())[0] == (1, KeyState.DECRYPT_ONLY)


def test_only_the_master_may_change_keys(regions: Regions) -> None:
    before = dict(regions.primary.objects)

    changes: tuple[Callable[[], object], ...] = (
        lambda: regions.care(9).rotate(Purpose.DATA),
        lambda: regions.care(9).set_state("1", KeyState.SUSPENDED),
        lambda: regions.care(9).rotate_master(NEW),
    )
    for change in changes:
        with pytest.raises(KeyRefused):
            change()
    assert regions.primary.objects == before


def test_a_suspended_key_opens_nothing_until_it_may_again(regions: Regions) -> None:
    _keep(regions.primary, 7, b"chunk")

    after = regions.care().set_state("1", KeyState.SUSPENDED)

    assert _data(after) == [(1, KeyState.SUSPENDED), (2, KeyState.ACTIVE)]
    with pytest.raises(KeyUnusable, match="suspended since"):
        Repository.open(regions.primary, ACME, OLD).reader()
    regions.care().set_state("1", KeyState.DECRYPT_ONLY)
    opened = Repository.open(regions.primary, ACME, OLD)
    assert opened.reader().read(opened.namer(b"chunk")) == b"chunk"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (KeyState.COMPROMISED, KeyState.ACTIVE),
        (KeyState.COMPROMISED, KeyState.SUSPENDED),
        (KeyState.DECRYPT_ONLY, KeyState.ACTIVE),
        (KeyState.SUSPENDED, KeyState.DESTROYED),
    ],
)
def test_a_state_that_cannot_follow_is_refused(
    regions: Regions, first: KeyState, then: KeyState
) -> None:
    regions.care().set_state("1", first)

    with pytest.raises(KeyUnusable, match="cannot become"):
        regions.care().set_state("1", then)


def test_a_key_that_is_not_there_is_told(regions: Regions) -> None:
    with pytest.raises(KeyUnusable, match="no data key '7'") as caught:
        regions.care().set_state("7", KeyState.SUSPENDED)
    assert "its epoch: 1" in caught.value.hint


def test_only_a_compromised_key_is_destroyed(regions: Regions) -> None:
    with pytest.raises(KeyUnusable, match="not compromised"):
        regions.care().destroy_data_key("1")
    regions.care().set_state("1", KeyState.COMPROMISED)

    after = regions.care().destroy_data_key("1")

    assert _data(after) == [(1, KeyState.DESTROYED), (2, KeyState.ACTIVE)]
    destroyed = next(each for each in after.records if each.state is KeyState.DESTROYED)
    assert destroyed.secret.reveal() == b""


def _escrow_epochs(regions: Regions) -> list[int]:
    records = regions.care().keyring().records
    return [each.epoch for each in records if each.purpose is Purpose.ESCROW]


def test_an_escrow_opens_this_generation_and_every_later_one(regions: Regions) -> None:
    recipient, shares, sender = split(2, 3)

    regions.care().set_escrow(recipient, sender)
    regions.care().rotate(Purpose.DATA)
    regions.care().rotate_master(NEW)

    keyring = load_keyring(regions.second, regions.owner, SharesKeyStore(shares[1:]))
    assert keyring.generation == 4
    KeyCare(ACME, [regions.primary], SharesKeyStore(shares[:2]), regions.clock).rotate_master(OLD)
    assert Repository.open(regions.primary, ACME, OLD)

    assert _escrow_epochs(regions) == [1]
    another, _, shown = split(2, 2)
    regions.care().set_escrow(another, shown)
    assert _escrow_epochs(regions) == [2]
    regions.care().set_escrow(None)
    assert _escrow_epochs(regions) == []
    with pytest.raises(KeyRefused, match="not for a escrow-shares"):
        load_keyring(regions.primary, regions.owner, SharesKeyStore(shares[:2]))


def test_what_is_due_is_reckoned_from_the_keys_themselves(regions: Regions) -> None:
    keyring = regions.care().keyring()

    assert Schedule(30, 90, 365).data_due(keyring) == NOON + timedelta(days=30)
    assert Schedule(30, 7, 365).master_due(keyring) == NOON + timedelta(days=7)


DAYS = Schedule(30, 90, 365)


def test_a_key_that_was_suspended_does_not_put_off_the_one_that_seals(regions: Regions) -> None:
    regions.care().set_state("1", KeyState.SUSPENDED)
    regions.clock.sleep(20 * 86400)

    keyring = regions.care().set_state("1", KeyState.ACTIVE)

    assert _data(keyring) == [(1, KeyState.ACTIVE), (2, KeyState.ACTIVE)]
    assert DAYS.data_due(keyring) == NOON + timedelta(days=30)


def test_what_was_changed_while_a_clock_was_wrong_is_due(regions: Regions) -> None:
    regions.clock.sleep(70 * 365 * 86400)
    regions.care().rotate(Purpose.DATA)
    keyring = regions.care().rotate_master(NEW)

    assert DAYS.due(keyring, NOON) == ["data", "master"]
    assert DAYS.due(keyring, regions.clock.now() - timedelta(minutes=50)) == ["archive"]
    regions.clock.sleep(-70 * 365 * 86400)
    assert DAYS.due(regions.care(8).rotate(Purpose.DATA), NOON) == ["master"]


def test_a_change_that_meets_a_destruction_leaves_no_keys_behind(regions: Regions) -> None:
    class Late(MemoryStore):
        """The keys are destroyed between its reading and its writing."""

        def put(self, name: str, body: Blob) -> None:
            if name.endswith("/00000002"):
                stores = {"one": regions.primary, "two": regions.second}
                record = destroy_keys(ACME, stores, {"key-file": OLD}, "ann", regions.clock)
                assert record.complete
            super().put(name, body)

    late = Late()
    late.objects = regions.primary.objects

    with pytest.raises(KeyUnusable, match="were destroyed"):
        regions.care(7, late, regions.second).rotate(Purpose.DATA)

    assert regions.primary.names("keys/") == regions.second.names("keys/") == []


def test_an_object_that_calls_itself_newer_costs_no_key(regions: Regions) -> None:
    """It comes between the opening of the newest keyring and the removing of older ones."""

    class Second(MemoryStore):
        def put(self, name: str, body: Blob) -> None:
            if name.endswith("/00000002"):
                regions.primary.objects[keyring_name(regions.owner.repository, 9)] = b"hostile"
            super().put(name, body)

    second = Second()
    second.objects = regions.second.objects
    regions.care(7, regions.primary, second).rotate(Purpose.DATA)
    with pytest.raises(Damaged):
        regions.care().settle()
    assert generations(regions.primary, regions.owner) == [2, 9]


def test_a_strange_keyring_in_another_region_is_told_with_its_place(regions: Regions) -> None:
    regions.second.put(keyring_name(regions.owner.repository, 9), b"hostile")

    with pytest.raises(Damaged, match=r"^memory://two: "):
        regions.care().settle()


def test_it_is_known_whether_a_change_was_cut_short(regions: Regions) -> None:
    assert regions.care().is_settled()
    gone = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        regions.care(7, regions.primary, FaultyStore(regions.second, put=[None, gone])).rotate(
            Purpose.DATA
        )
    assert not regions.care().is_settled()
    mirror(regions.primary, regions.second, regions.owner)
    assert not regions.care().is_settled(), "older ones are there still"
    regions.care().settle()
    assert regions.care().is_settled()
