"""What a compromised key sealed is sealed anew, wherever that was cut, and nothing is lost."""

from __future__ import annotations

import random

import pytest

from kryonix_backup.crypto.keys import KeyState, Purpose
from kryonix_backup.errors import Damaged, KeyUnusable, ObjectMissing, StoreUnavailable
from kryonix_backup.events import quiet
from kryonix_backup.maintenance.key_care import KeyCare
from kryonix_backup.maintenance.report import Level
from kryonix_backup.maintenance.verify import verify
from kryonix_backup.model import ChainId, KeyId, LogHeader, RestoreId, SourceName
from kryonix_backup.repository.repository import Repository
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import (
    ACME,
    RecordingStore,
    back_up,
    key_file,
    new_repository,
    reopened,
)
from kryonix_backup.testing.sources import MemorySource, Thing

CHAIN = ChainId("20261123t120000z-0123456789abcdef")
RESTORE = RestoreId("20261124t120000z-0123456789abcdef")
LOG = b"frames" * 1000


def _things(seed: int) -> dict[bytes, Thing]:
    chance = random.Random(seed)
    return {b"file-%d" % n: Thing(chance.randbytes(70_000)) for n in range(4)}


def _compromised() -> tuple[RecordingStore, KeyId]:
    """Every kind of object under the first key, which somebody else may know by now."""
    store = RecordingStore()
    repository = new_repository(store)
    for seed in (1, 2, 2):
        back_up(repository, MemorySource(_things(seed), _things(seed + 10)))
    header = LogHeader(CHAIN, 0, 1, 2, None, None, None, 0, 0, "", {"log": "7/8"})
    repository.log(SourceName("db")).append(header, LOG)
    repository.write_journal(RESTORE, 0, {"step": "begun"})
    keyring = KeyCare(ACME, [store], key_file(), FixedClock()).set_state("1", KeyState.COMPROMISED)
    return store, next(each.id for each in keyring.records if each.purpose is Purpose.DATA)


def _compromise_and_reseal(store: ObjectStore) -> None:
    keyring = KeyCare(ACME, [store], key_file(), FixedClock()).set_state("1", KeyState.COMPROMISED)
    _reseal(store, next(each.id for each in keyring.records if each.purpose is Purpose.DATA))


def _reseal(store: ObjectStore, key: KeyId) -> list[str]:
    resealer = Repository.open(store, ACME, key_file()).resealer()
    return [info.name for info in resealer.reseal(resealer.sealed_by(key))]


def _assert_whole(store: RecordingStore) -> None:
    repository = reopened(store)
    report = verify(repository, Level.DATA, quiet, FixedClock())
    assert (report.status, report.snapshots) == ("ok", 3)
    (piece,) = repository.log(SourceName("db")).segment(CHAIN, 0)[1]
    assert bytes(piece) == LOG
    assert repository.journal(RESTORE) == [{"step": "begun"}]


def test_everything_the_key_sealed_is_found_and_sealed_anew() -> None:
    store, key = _compromised()
    before = set(store.names())

    done = _reseal(store, key)

    kinds = {name.partition("/")[0] for name in done}
    assert kinds == {"packs", "index", "snapshots", "logs", "restores"}
    assert set(done) == {name for name in before if not name.startswith(("keys/", "format"))}
    assert reopened(store).resealer().sealed_by(key) == []
    _assert_whole(store)


def test_afterwards_the_key_is_not_needed() -> None:
    store, key = _compromised()
    _reseal(store, key)

    KeyCare(ACME, [store], key_file(), FixedClock()).destroy_data_key(key)

    _assert_whole(store)
    report = back_up(reopened(store), MemorySource(_things(2), _things(12)))
    assert report.to_plain()["bytes_new"] < 10_000  # it finds every chunk in its new pack


def test_what_another_key_sealed_is_left_as_it_is() -> None:
    store, key = _compromised()
    back_up(reopened(store), MemorySource(_things(3)))
    before = dict(store.objects)
    others = {info.name for info in reopened(store).resealer().sealed_by(
        reopened(store)._keys.current.id)}  # fmt: skip

    _reseal(store, key)

    assert {name for name in others if not name.startswith("index/")}
    for name in others:
        if not name.startswith("index/"):
            assert store.objects[name] == before[name]


@pytest.mark.parametrize("method", ["put", "delete", "replace"])
@pytest.mark.parametrize("cut", range(4))
def test_cut_at_any_step_nothing_is_lost_and_run_again_it_ends(method: str, cut: int) -> None:
    store, key = _compromised()
    faulty = FaultyStore(store, **{method: [None] * cut + [StoreUnavailable("gone")]})

    with pytest.raises(StoreUnavailable):
        _reseal(faulty, key)
    faulty.assert_all_faults_fired()
    _assert_whole(store)

    _reseal(store, key)
    _assert_whole(store)
    assert reopened(store).resealer().sealed_by(key) == []
    named = {f"packs/{pack[:2]}/{pack}" for pack in reopened(store).load_index().packs()}
    assert named == set(store.names("packs/"))


def test_a_damaged_object_is_told_and_left() -> None:
    store, key = _compromised()
    name = store.names("packs/")[0]
    body = bytearray(store.objects[name])
    body[100] ^= 1
    store.objects[name] = bytes(body)

    with pytest.raises(Damaged, match=name):
        _reseal(store, key)
    assert store.objects[name] == bytes(body)


@pytest.mark.parametrize("state", [KeyState.SUSPENDED, KeyState.COMPROMISED])
def test_a_backup_that_sealed_with_the_key_does_not_count(state: KeyState) -> None:
    store = RecordingStore()
    began = new_repository(store)

    def run() -> None:
        with began.writer() as writer:
            writer.lane("store").keep([b"sealed by the first key"])
            KeyCare(ACME, [store], key_file(), FixedClock()).set_state("1", state)

    with pytest.raises(KeyUnusable, match=f"is {state.value} since this began") as caught:
        run()

    assert "again" in caught.value.hint


def test_a_client_that_was_open_before_seals_with_the_key_of_now() -> None:
    store = RecordingStore()
    opened = new_repository(store)
    care = KeyCare(ACME, [store], key_file(), FixedClock())
    first = care.key_id("1")
    care.set_state("1", KeyState.COMPROMISED)

    back_up(opened, MemorySource(_things(1)))

    assert verify(reopened(store), Level.DATA, quiet, FixedClock()).status == "ok"
    assert reopened(store).resealer().sealed_by(first) == []


def test_a_backup_that_began_before_a_new_epoch_counts() -> None:
    store = RecordingStore()
    began = new_repository(store)
    KeyCare(ACME, [store], key_file(), FixedClock()).rotate(Purpose.DATA)

    back_up(began, MemorySource(_things(1)))

    assert verify(reopened(store), Level.DATA, quiet, FixedClock()).status == "ok"


def test_what_comes_back_under_a_destroyed_key_is_damage_and_stops_no_backup() -> None:
    store = RecordingStore()
    back_up(new_repository(store), MemorySource(_things(1)))
    before = dict(store.objects)
    care = KeyCare(ACME, [store], key_file(), FixedClock())
    care.set_state("1", KeyState.COMPROMISED)
    resealer = reopened(store).resealer()
    list(resealer.reseal(resealer.sealed_by(care.compromised("1"))))
    care.destroy_data_key("1")
    for name, body in before.items():
        if name.startswith(("packs/", "index/")):
            store.objects.setdefault(name, body)

    back_up(reopened(store), MemorySource(_things(2)))

    report = verify(reopened(store), Level.DATA, quiet, FixedClock())
    assert "was destroyed" in " ".join(damage.reason for damage in report.damage)
    assert all(damage.affected == 0 for damage in report.damage)


def test_who_was_open_before_reads_what_was_sealed_anew() -> None:
    store = RecordingStore()
    before = new_repository(store)
    with before.writer() as writer:
        writer.lane("store").keep([b"chunk"])
    before.load_index()
    _compromise_and_reseal(store)

    again = before.reader()
    assert again.read(before.namer(b"chunk")) == b"chunk"
    assert before.load_index().names == set(store.names("index/"))


def test_an_index_that_is_written_anew_while_it_is_read_is_read_again() -> None:
    store = RecordingStore()
    with new_repository(store).writer() as writer:
        writer.lane("store").keep([b"chunk"])

    class Late(RecordingStore):
        done = False

        def get(self, name: str) -> bytes:
            if name.startswith("index/") and not self.done:
                self.done = True
                _compromise_and_reseal(store)
            return super().get(name)

    late = Late()
    late.objects = store.objects
    opened = reopened(late)

    assert opened.reader().read(opened.namer(b"chunk")) == b"chunk"
    assert late.done


def test_a_part_of_the_index_that_is_listed_and_not_there_is_told() -> None:
    store = RecordingStore()
    with new_repository(store).writer() as writer:
        writer.lane("store").keep([b"chunk"])
    missing = ObjectMissing("index/x is not there")

    with pytest.raises(ObjectMissing):
        reopened(FaultyStore(store, get=[None, None, missing])).reader()
