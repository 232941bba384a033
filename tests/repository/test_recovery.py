"""What a crash, a lost object or another writer left behind is made good by the next run."""

from __future__ import annotations

import pytest

from kryonix_backup.crypto.seal import Kind
from kryonix_backup.errors import Damaged, StoreUnavailable
from kryonix_backup.repository.layout import pack_name
from kryonix_backup.repository.repository import Repository
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened
from tests.repository.kept import keep


def test_packs_that_a_crash_left_without_an_index_are_taken_up() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    keep(repository, b"one", b"two")
    for name in store.names("index/"):
        del store.objects[name]
    packs = store.names("packs/")

    fresh = reopened(store)

    assert keep(fresh, b"one", b"two", b"three") == 1
    assert len(store.names("packs/")) == len(packs) + 1
    assert reopened(store).reader().read(fresh.namer(b"one")) == b"one"


def test_a_pack_that_does_not_open_is_left_aside_and_its_chunks_are_stored_again() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    keep(repository, b"one", b"two")
    (index,), (pack,) = store.names("index/"), store.names("packs/")
    del store.objects[index]
    store.objects[pack] = store.objects[pack][:-30]

    fresh = reopened(store)

    assert keep(fresh, b"one", b"two") == 2
    assert fresh.reader().read(fresh.namer(b"one")) == b"one"
    assert pack in store.objects


def test_a_file_among_the_packs_that_is_not_one_is_left_alone() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    store.objects["packs/readme"] = b"hello"
    store.objects["packs/ab/cd"] = b"hello"

    assert keep(repository, b"one") == 1
    assert keep(reopened(store), b"one") == 0


def test_another_repositorys_pack_is_not_taken_up() -> None:
    store, other = RecordingStore(), RecordingStore()
    repository = new_repository(store)
    keep(new_repository(other), b"one")
    (theirs,) = other.names("packs/")
    store.objects[theirs] = other.objects[theirs]

    assert keep(repository, b"one") == 1


@pytest.mark.parametrize("hurt", ["removed", "cut", "longer"])
def test_a_lost_pack_is_healed_by_the_next_run(hurt: str) -> None:
    store = RecordingStore()
    keep(new_repository(store), b"one", b"two")
    (pack,) = store.names("packs/")
    body = store.objects.pop(pack)
    if hurt != "removed":
        store.objects[pack] = body[:-1] if hurt == "cut" else body + b"\0"

    assert keep(reopened(store), b"one", b"two") == 2

    healed = reopened(store)
    assert healed.reader().read(healed.namer(b"two")) == b"two"
    assert keep(healed, b"one", b"two") == 0


def test_what_was_healed_stays_healed_however_many_runs_follow() -> None:
    store = RecordingStore()
    keep(new_repository(store), b"one", b"two")
    (pack,) = store.names("packs/")
    del store.objects[pack]
    keep(reopened(store), b"one", b"two")

    for number in range(12):
        assert keep(reopened(store), b"one", b"two", b"filler %d" % number) == 1

    healed = reopened(store)
    assert healed.reader().read(healed.namer(b"one")) == b"one"


def _mark(repository: Repository, packs: list[str]) -> None:
    """An intent as maintenance will write it before it deletes."""
    repository._keep(Kind.INTENT, "intents/20261123t120000z-0123456789abcdef", {"packs": packs})


def test_chunks_of_a_marked_pack_are_stored_again() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    keep(repository, b"one", b"two")
    keep(repository, b"three")
    marked = repository.load_index().find(repository.namer(b"one"))
    assert marked is not None
    _mark(repository, [marked.pack.id])

    assert keep(reopened(store), b"one", b"two", b"three") == 2

    del store.objects[pack_name(marked.pack.id)]  # the sweep
    swept = reopened(store)
    assert swept.reader().read(swept.namer(b"one")) == b"one"
    assert keep(swept, b"one", b"two", b"three") == 0


def test_a_mark_that_cannot_be_read_stops_every_writer() -> None:
    """Whoever cannot know what is about to be deleted must not rely on anything."""
    store = RecordingStore()
    repository = new_repository(store)
    _mark(repository, [])
    (name,) = store.names("intents/")
    store.objects[name] = store.objects[name][:-1]

    with pytest.raises(Damaged, match=name):
        keep(repository, b"one")


def test_what_others_wrote_meanwhile_is_seen() -> None:
    store = RecordingStore()
    mine, theirs = new_repository(store), reopened(store)
    assert keep(mine, b"one") == 1

    assert keep(theirs, b"one") == 0
    assert keep(theirs, b"two") == 1
    assert mine.reader().read(mine.namer(b"two")) == b"two"


def test_present_packs_are_those_in_full_length() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    for number in range(3):
        keep(repository, b"%d" % number)
    packs = set(repository.load_index().packs())
    one, two, _ = store.names("packs/")
    del store.objects[one]
    store.objects[two] += b"\0"

    assert len(packs) == 3
    assert {pack_name(pack) for pack in repository.present_packs()} == {store.names("packs/")[1]}


@pytest.mark.parametrize("hurt", [0, 1, 2])
def test_a_damaged_index_object_stops_nobody_and_is_written_anew(hurt: int) -> None:
    store = RecordingStore()
    repository = new_repository(store)
    for number in range(3):
        keep(repository, b"%d" % number)
    name = store.names("index/")[hurt]
    store.objects[name] = store.objects[name][:-1]

    fresh = reopened(store)
    assert [bytes(fresh.reader().read(fresh.namer(b"%d" % n))) for n in range(3)] == [
        b"0", b"1", b"2",
    ]  # fmt: skip
    assert set(fresh.load_index().damaged) == {name}

    counting = FaultyStore(store)
    again = reopened(counting)
    assert keep(again, b"0", b"1", b"2", b"new") == 1
    del store.objects[name]
    healed = reopened(store)
    assert healed.load_index().damaged == {}
    assert len(healed.load_index()) == 4


def test_without_any_index_object_the_next_run_writes_it_anew() -> None:
    store = RecordingStore()
    keep(new_repository(store), b"one", b"two")
    for name in store.names("index/"):
        del store.objects[name]

    assert keep(reopened(store), b"one", b"two") == 0
    assert reopened(store).load_index().find(reopened(store).namer(b"one")) is not None


def test_a_store_that_does_not_answer_is_not_taken_for_a_damaged_pack() -> None:
    store = RecordingStore()
    keep(new_repository(store), b"one")
    for name in store.names("index/"):
        del store.objects[name]

    with pytest.raises(StoreUnavailable):
        keep(reopened(FaultyStore(store, get_range=[StoreUnavailable("gone")])), b"one")
