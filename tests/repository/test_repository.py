"""A repository is one tenant's, opens with its key, and forgets nothing that was durable."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest

from kryonix_backup.crypto.seal import Kind, seal_object
from kryonix_backup.errors import (
    Damaged,
    FormatUnsupported,
    KeyRefused,
    KryonixError,
    ObjectExists,
    RepositoryExists,
    RepositoryMissing,
    SnapshotUnknown,
    StoreUnavailable,
)
from kryonix_backup.model import BackupKind, RestoreId, SnapshotId, TenantId
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.storage.memory import MemoryStore
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.faults import AnswerLost, FaultyStore
from kryonix_backup.testing.repositories import (
    ACME,
    RecordingStore,
    key_file,
    new_repository,
    reopened,
)
from tests.repository.kept import keep

RESTORE = RestoreId("20261123t120000z-0123456789abcdef")


def _snapshot(snapshot_id: str) -> Snapshot:
    return Snapshot(
        SnapshotId(snapshot_id), ACME, BackupKind.FULL, None, NOON, NOON, {}, {}, "0.1.0"
    )


IDS = [
    "20261121t120000z-00000000000000aa",
    "20261122t120000z-00000000000000ab",
    "20261123t120000z-0000000000000bcd",
]


def _with_snapshots() -> tuple[RecordingStore, Repository]:
    store = RecordingStore()
    repository = new_repository(store)
    for each in reversed(IDS):
        repository.publish(_snapshot(each))
    return store, repository


# ---------------------------------------------------------------------- create and open


def test_a_new_repository_opens_again() -> None:
    store = RecordingStore()

    made = new_repository(store)
    again = reopened(store)

    assert (again.id, again.tenant, again.created) == (made.id, ACME, NOON)
    assert again.namer(b"x") == made.namer(b"x")


def test_its_description_is_written_last() -> None:
    store = RecordingStore()

    new_repository(store)

    assert store.puts[-1] == "format.json"
    assert [name.partition("/")[0] for name in store.puts[:-1]] == ["keys"]


def test_where_one_is_there_is_not_made_another() -> None:
    store = RecordingStore()
    new_repository(store)
    before = dict(store.objects)

    with pytest.raises(RepositoryExists):
        new_repository(store)

    assert store.objects == before


def test_of_two_that_are_made_at_once_one_counts() -> None:
    store = RecordingStore()
    new_repository(store)
    taken = store.objects.pop("format.json")

    class Late(RecordingStore):
        """Sees the other's description only when it writes its own."""

        def put(self, name: str, body: Any) -> None:
            if name == "format.json":
                self.objects[name] = taken
            super().put(name, body)

    late = Late()
    late.objects.update(store.objects)

    with pytest.raises(RepositoryExists):
        new_repository(late)
    assert reopened(late).id == json.loads(taken)["repository"]


@pytest.mark.parametrize("puts", [0, 1])
def test_a_creation_that_was_cut_short_can_be_done_again(puts: int) -> None:
    inner = RecordingStore()
    faulty = FaultyStore(inner, put=[None] * puts + [StoreUnavailable("gone")])

    with pytest.raises(StoreUnavailable):
        new_repository(faulty)
    with pytest.raises(RepositoryMissing):
        reopened(inner)

    new_repository(inner)
    assert keep(reopened(inner), b"chunk") == 1


def test_where_none_is_nothing_opens() -> None:
    with pytest.raises(RepositoryMissing, match="memory://here"):
        reopened(MemoryStore("memory://here"))


def test_another_key_or_tenant_is_refused() -> None:
    store = RecordingStore()
    new_repository(store)

    with pytest.raises(KeyRefused):
        Repository.open(store, ACME, key_file(8))
    with pytest.raises(KeyRefused, match="globex"):
        Repository.open(store, TenantId("globex"), key_file())


def test_a_newer_format_is_refused() -> None:
    store = RecordingStore()
    new_repository(store)
    store.objects["format.json"] = store.objects["format.json"].replace(
        b'"version": 1', b'"version": 2'
    )

    with pytest.raises(FormatUnsupported):
        reopened(store)


def test_a_description_of_another_repository_opens_nothing() -> None:
    one, two = RecordingStore(), RecordingStore()
    new_repository(one)
    new_repository(two)
    one.objects["format.json"] = two.objects["format.json"]

    with pytest.raises(Damaged, match=r"format\.json of another"):
        reopened(one)


@pytest.mark.parametrize("hurt", ["wrapped", "cut", "another's"])
def test_a_keyring_that_was_hurt_is_told(hurt: str) -> None:
    store, other = RecordingStore(), RecordingStore()
    new_repository(store)
    new_repository(other)
    (name,), (others,) = store.names("keys/"), other.names("keys/")
    body = store.objects[name]
    store.objects[name] = {
        "wrapped": body.replace(b'"wrapped": "', b'"wrapped": "A'),
        "cut": body[:-10],
        "another's": other.objects[others],
    }[hurt]

    with pytest.raises((Damaged, KeyRefused), match=name):
        reopened(store)


def test_without_keys_it_is_damaged() -> None:
    store = RecordingStore()
    new_repository(store)
    for name in store.names("keys/"):
        del store.objects[name]

    with pytest.raises(Damaged, match="lost its keys"):
        reopened(store)


# ---------------------------------------------------------------------- snapshots


def test_snapshots_are_listed_oldest_first() -> None:
    store, repository = _with_snapshots()
    for name in ("not-a-run", "99999999t999999z-0123456789abcdef", IDS[0][:-16] + "f" * 16):
        store.objects[f"snapshots/{name}"] = b""

    assert repository.snapshot_ids() == IDS
    assert [snapshot.id for snapshot in repository.snapshots()] == IDS


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("latest", IDS[2]),
        (IDS[0], IDS[0]),
        ("20261122", IDS[1]),
        ("0000000000000b", IDS[2]),
        ("00000000000000ab", IDS[1]),
    ],
)
def test_a_snapshot_is_found_by_what_sets_it_apart(wanted: str, found: str) -> None:
    assert _with_snapshots()[1].snapshot(wanted) == _snapshot(found)


@pytest.mark.parametrize("wanted", ["", "2026", "00000000000000a", "x", "20261123T", "../x", "*"])
def test_what_fits_none_or_several_is_unknown(wanted: str) -> None:
    with pytest.raises(SnapshotUnknown):
        _with_snapshots()[1].snapshot(wanted)


def test_an_empty_repository_has_no_latest() -> None:
    with pytest.raises(SnapshotUnknown, match="none yet"):
        new_repository().snapshot("latest")


def test_a_snapshot_is_written_once() -> None:
    _, repository = _with_snapshots()

    with pytest.raises(ObjectExists):
        repository.publish(replace(_snapshot(IDS[0]), kind=BackupKind.INCREMENTAL))
    assert repository.snapshot(IDS[0]) == _snapshot(IDS[0])


def test_a_snapshot_that_was_renamed_swapped_or_changed_is_damaged() -> None:
    store, repository = _with_snapshots()
    bodies = [store.objects[f"snapshots/{each}"] for each in IDS]
    other_store, _ = _with_snapshots()
    hurt = {
        "swapped": bodies[1],
        "of another repository": other_store.objects[f"snapshots/{IDS[0]}"],
        "changed": bodies[0][:-1] + bytes([bodies[0][-1] ^ 1]),
        "cut": bodies[0][:-1],
        "an index": b"",
    }

    for body in hurt.values():
        store.objects[f"snapshots/{IDS[0]}"] = body
        with pytest.raises(Damaged, match=f"snapshots/{IDS[0]}"):
            repository.snapshot(IDS[0])
        assert repository.snapshot(IDS[1]) == _snapshot(IDS[1])


def test_a_manifest_that_names_another_tenant_is_damaged() -> None:
    """Sealed by the tenant's own key, and yet not the tenant's."""
    _, repository = _with_snapshots()
    theirs = replace(_snapshot("20261124t120000z-0123456789abcdef"), tenant=TenantId("globex"))
    repository.publish(theirs)

    with pytest.raises(Damaged, match="another snapshot or tenant"):
        repository.snapshot(theirs.id)


# ---------------------------------------------------------------------- journals


def test_a_journal_keeps_its_records_in_order() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    for step in range(12):
        repository.write_journal(RESTORE, step, {"step": step})

    assert reopened(store).journal(RESTORE) == [{"step": step} for step in range(12)]
    assert repository.journal(RestoreId("20261123t120000z-ffffffffffffffff")) == []


def test_a_step_is_recorded_once() -> None:
    repository = new_repository()
    repository.write_journal(RESTORE, 0, {"by": "one"})

    with pytest.raises(ObjectExists):
        repository.write_journal(RESTORE, 0, {"by": "two"})
    assert repository.journal(RESTORE) == [{"by": "one"}]


def test_records_that_were_swapped_are_damaged() -> None:
    store = RecordingStore()
    repository = new_repository(store)
    for step in range(2):
        repository.write_journal(RESTORE, step, {"step": step})
    one, two = store.names("restores/")
    store.objects[one], store.objects[two] = store.objects[two], store.objects[one]

    with pytest.raises(Damaged, match=one):
        repository.journal(RESTORE)


@pytest.mark.parametrize("plain", [b"", b"\0", b"\x09" + bytes(8), bytes(9) + b"x",
                                   b"\0" + b"\xff" * 8, b"\1" + bytes(8) + b"no zstd",
                                   bytes(8) + b"\x02[]", bytes(8) + b"\x01{"])  # fmt: skip
def test_a_sealed_object_in_the_wrong_form_is_damaged(plain: bytes) -> None:
    store = RecordingStore()
    repository = new_repository(store)
    name = f"restores/{RESTORE}/0000"
    store.objects[name] = seal_object(Kind.JOURNAL, name, plain, repository._keys, repository.id)

    with pytest.raises(Damaged, match=name):
        repository.journal(RESTORE)


# ---------------------------------------------------------------------- publishing


@pytest.mark.parametrize("fault", [StoreUnavailable("gone"), AnswerLost(StoreUnavailable("lost"))])
def test_a_publication_without_an_answer_is_an_error_and_no_half_snapshot(
    fault: KryonixError | AnswerLost,
) -> None:
    inner = RecordingStore()
    new_repository(inner)
    faulty = FaultyStore(inner, put=[fault])

    with pytest.raises(StoreUnavailable):
        reopened(faulty).publish(_snapshot(IDS[0]))

    there = reopened(inner)
    assert [there.snapshot(each) for each in there.snapshot_ids()] == (
        [_snapshot(IDS[0])] if isinstance(fault, AnswerLost) else []
    )


def test_a_repository_neither_prints_nor_pickles_its_keys() -> None:
    repository = new_repository(clock=FixedClock())

    assert "Secret" not in repr(repository)
    with pytest.raises(TypeError):
        pickle.dumps(repository)
