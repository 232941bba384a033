"""What is damaged is found and named, with the entries that depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kryonix_backup.errors import (
    RepositoryError,
    RepositoryMissing,
    SnapshotUnknown,
    StoreUnavailable,
)
from kryonix_backup.events import Progress
from kryonix_backup.maintenance.report import Level
from kryonix_backup.maintenance.verify import verify
from kryonix_backup.model import ChunkId, EntryKind
from kryonix_backup.storage.store import ObjectInfo
from kryonix_backup.testing.clock import NOON, FixedClock, TickingClock
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import (
    FILES,
    RecordingStore,
    back_up,
    new_repository,
    reopened,
)
from kryonix_backup.testing.sources import MemorySource, Thing
from tests.maintenance.conftest import DAY, SECOND, Filled, data, verified

# ---------------------------------------------------------------------- sound


@pytest.mark.parametrize("level", list(Level))
def test_a_sound_repository_is_ok(filled: Filled, level: Level) -> None:
    report = verified(reopened(filled.store), level)

    packs = filled.store.names("packs/")
    assert report.status == "ok"
    assert report.damage == ()
    assert (report.snapshots, report.packs) == (2, len(packs))
    read = {Level.STRUCTURE: 0, Level.SAMPLE: 1, Level.DATA: len(packs)}[level]
    assert report.packs_read == read
    if level is Level.DATA:
        assert report.bytes_read == sum(len(filled.store.objects[name]) for name in packs)


def test_an_empty_repository_is_ok() -> None:
    assert verified(new_repository()).status == "ok"


def test_the_report_has_its_known_form(filled: Filled) -> None:
    plain = verified(reopened(filled.store)).to_plain()

    assert sorted(plain) == [
        "bytes_read", "chunks", "damage", "duration_s", "level", "logs", "packs", "packs_read",
        "segments", "segments_read", "snapshots", "status", "tenant",
    ]  # fmt: skip
    assert (plain["tenant"], plain["level"], plain["status"]) == ("acme", "data", "ok")


def test_progress_grows_to_the_size_of_all_packs(filled: Filled) -> None:
    told: list[Progress] = []

    report = verify(reopened(filled.store), Level.DATA, told.append, TickingClock())

    assert [each.bytes_done for each in told] == sorted(each.bytes_done for each in told)
    assert told[-1].bytes_done == told[-1].bytes_total == report.bytes_read
    assert {each.stage for each in told} == {"verify"}


def test_chosen_snapshots_are_checked(filled: Filled) -> None:
    first, _ = filled.contents

    report = verified(reopened(filled.store), Level.STRUCTURE, first)

    assert report.snapshots == 1
    with pytest.raises(SnapshotUnknown):
        verified(reopened(filled.store), Level.STRUCTURE, "2020")


def test_a_snapshot_published_meanwhile_is_no_damage(filled: Filled) -> None:
    """Its chunks are in packs and segments that were not there when the index was read."""
    store = filled.store.copy()

    class Busy(RecordingStore):
        """After the packs were listed, another process backs up."""

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            found = list(super().list(prefix))
            if prefix == "packs/" and not self.puts:
                self.puts.append("once")
                tree = {**SECOND, b"new": Thing(data(9))}
                clock = FixedClock(NOON + 9 * DAY)
                back_up(reopened(self), MemorySource(tree), clock=clock)
            return iter(found)

    busy = Busy()
    busy.objects.update(store.objects)

    assert verified(reopened(busy)).status == "ok"
    assert len(reopened(busy).snapshot_ids()) == 3


def test_a_store_that_does_not_answer_is_no_damage(filled: Filled) -> None:
    faulty = FaultyStore(filled.store, get=[None] * 6 + [StoreUnavailable("gone")] * 9)

    with pytest.raises(StoreUnavailable):
        verified(reopened(faulty))


# ---------------------------------------------------------------------- each kind of object


def _flipped(body: bytes) -> bytes:
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


HURT: dict[str, Callable[[bytes], bytes]] = {
    "changed": _flipped,
    "cut": lambda body: body[: len(body) // 2],
    "empty": lambda _body: b"",
    "longer": lambda body: body + b"\0",
    "doubled": lambda body: body + body,
}


def _hurt(store: RecordingStore, name: str, how: str) -> RecordingStore:
    hurt = store.copy()
    body = hurt.objects.pop(name)
    if how != "removed":
        hurt.objects[name] = HURT[how](body)
    return hurt


@pytest.mark.parametrize("how", ["removed", *HURT])
@pytest.mark.parametrize("level", [Level.STRUCTURE, Level.DATA])
def test_every_hurt_pack_is_named_with_what_depends_on_it(
    filled: Filled, how: str, level: Level
) -> None:
    for name in filled.store.names("packs/"):
        store = _hurt(filled.store, name, how)

        report = verified(reopened(store), level)
        error = filled.first_error(store)

        if level is Level.DATA or how != "changed":
            assert report.status == "damaged"
            (damage,) = [each for each in report.damage if each.object == name]
            assert damage.reason
            assert damage.affected == len(damage.affects) or damage.affected > 100
            if how not in ("longer", "doubled") and error is not None:
                assert damage.affects
        if how not in ("longer", "doubled"):
            assert error is None or "packs/" in error.message


def test_what_depends_on_a_pack_is_named_to_the_entry(filled: Filled) -> None:
    repository = reopened(filled.store)
    first, second = filled.contents
    snapshot = repository.snapshot(second)
    (part,) = snapshot.sources[FILES].parts
    reader = repository.reader()
    entry = next(repository.tree(part.root, reader).entries(b"e"))
    found = repository.load_index().find(ChunkId(entry.refs[:32]))
    assert found is not None
    name = f"packs/{found.pack.id[:2]}/{found.pack.id}"

    report = verified(reopened(_hurt(filled.store, name, "removed")), Level.STRUCTURE)

    (damage,) = [each for each in report.damage if each.object == name]
    assert f"{second}:files/e" in damage.affects
    assert f"{second}:files/d/b" in damage.affects
    assert not [each for each in damage.affects if each.startswith(first)]


def test_a_damaged_leaf_does_not_hide_what_follows_it() -> None:
    """A tree of many leaves, of which one is lost, and content that is lost after it."""
    store = RecordingStore()
    repository = new_repository(store)
    many = {b"%05d" % number: Thing(kind=EntryKind.SOCKET) for number in range(3000)}
    snapshot = back_up(repository, MemorySource(many)).snapshot
    first = set(store.names("packs/"))
    tree = {**many, b"00000": Thing(kind=EntryKind.FIFO), b"99999": Thing(data(5))}
    back_up(repository, MemorySource(tree), clock=FixedClock(NOON + DAY))
    (old,) = first
    for name in [*store.names("packs/"), f"snapshots/{snapshot.id}"]:
        if name == old or name.startswith("snapshots/"):
            del store.objects[name]
    content = repository.load_index().find(repository.namer(data(5)))
    assert content is not None
    lost = f"packs/{content.pack.id[:2]}/{content.pack.id}"
    del store.objects[lost]

    damage = {each.object: each.affects for each in verified(reopened(store)).damage}

    assert len(damage[old]) >= 1
    assert [each for each in damage[lost] if each.endswith("files/99999")]


@pytest.mark.parametrize("how", ["removed", *HURT])
def test_a_hurt_snapshot_is_named_and_the_others_are_checked(filled: Filled, how: str) -> None:
    for name in filled.store.names("snapshots/"):
        store = _hurt(filled.store, name, how)

        report = verified(reopened(store))

        if how == "removed":
            assert (report.status, report.snapshots) == ("ok", 1)
            continue
        assert [damage.object for damage in report.damage] == [name]
        assert report.damage[0].affects == (f"snapshot {name.partition('/')[2]}",)
        error = filled.first_error(store)
        assert error is not None
        assert name in error.message


@pytest.mark.parametrize("how", HURT)
def test_a_hurt_index_object_is_named_and_everything_can_be_read(filled: Filled, how: str) -> None:
    for name in filled.store.names("index/"):
        store = _hurt(filled.store, name, how)

        report = verified(reopened(store))

        assert [damage.object for damage in report.damage] == [name]
        assert filled.first_error(store) is None


def test_a_missing_index_object_is_told_and_the_next_backup_heals_it(filled: Filled) -> None:
    for name in filled.store.names("index/"):
        store = _hurt(filled.store, name, "removed")

        report = verified(reopened(store))
        error = filled.first_error(store)

        assert report.status == "damaged"
        assert "no index names" in report.damage[0].object
        assert error is not None
        assert "in no pack that the index names" in error.message
        back_up(reopened(store), MemorySource({}), clock=FixedClock(NOON + 9 * DAY))
        assert verified(reopened(store)).status == "ok"


@pytest.mark.parametrize("how", ["removed", *HURT])
def test_a_hurt_key_object_is_named(filled: Filled, how: str) -> None:
    for name in filled.store.names("keys/"):
        with pytest.raises(RepositoryError, match="keys"):
            reopened(_hurt(filled.store, name, how))


@pytest.mark.parametrize("how", ["removed", "cut", "empty", "longer", "doubled"])
def test_a_hurt_description_is_named(filled: Filled, how: str) -> None:
    with pytest.raises((RepositoryError, RepositoryMissing)):
        reopened(_hurt(filled.store, "format.json", how))
