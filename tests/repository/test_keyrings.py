"""Only the newest keyring counts, and what is left of another creation is no key of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.crypto.keyring import first_keyring, seal_keyring
from kryonix_backup.crypto.keys import Owner, Purpose
from kryonix_backup.crypto.stores.root import master_from
from kryonix_backup.errors import (
    Damaged,
    KeyRefused,
    KeyUnusable,
    ObjectMissing,
    RepositoryExists,
    RepositoryMissing,
    RolledBack,
)
from kryonix_backup.model import RepositoryId
from kryonix_backup.repository.keyrings import (
    NewerKeys,
    catch_up,
    described_at,
    generations,
    key_objects,
    load_keyring,
    mirror,
    newest_keyring,
    remove_older,
)
from kryonix_backup.repository.layout import DESTROYED, keyring_name
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.storage.memory import MemoryStore
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.repositories import ACME, RecordingStore, key_file, new_repository
from tests.golden.make import ROOTS, TENANT

GOLDEN = Path(__file__).parents[1] / "golden/1/key-file/repository"


def _with_generations(*fills: int) -> tuple[RecordingStore, Owner]:
    """A repository whose keyrings are wrapped for key files of these bytes."""
    store = RecordingStore()
    owner = Owner(new_repository(store).id, ACME)
    for generation, fill in enumerate(fills, 2):
        keyring = replace(first_keyring(NOON), generation=generation)
        body = seal_keyring(keyring, [key_file(fill)], owner)
        store.put(keyring_name(owner.repository, generation), body)
    return store, owner


def test_the_newest_generation_counts() -> None:
    store, owner = _with_generations(8, 9)

    assert generations(store, owner) == [1, 2, 3]
    assert load_keyring(store, owner, key_file(9)).generation == 3
    newest = newest_keyring(store, owner)
    assert newest is not None
    assert newest[0] == keyring_name(owner.repository, 3)


def test_an_older_generation_never_stands_in_for_it() -> None:
    store, owner = _with_generations(8)

    with pytest.raises(KeyRefused, match="00000002"):
        load_keyring(store, owner, key_file(7))


def test_other_names_beside_them_are_left_aside() -> None:
    store, owner = _with_generations()
    store.put(f"keys/{owner.repository}/00000009x", b"")
    store.put(f"keys/{owner.repository}/9", b"")
    store.put(keyring_name(RepositoryId("f" * 32), 5), b"of a creation that was cut short")

    assert generations(store, owner) == [1]
    assert load_keyring(store, owner, key_file()).generation == 1


def test_keys_from_before_keyrings_are_generation_0() -> None:
    store = FilesystemStore(GOLDEN)
    owner = Owner(described_at(store).repository, TENANT)

    keyring = load_keyring(store, owner, master_from(ROOTS["key-file"]))

    assert keyring.generation == 0
    assert newest_keyring(store, owner) is None
    assert sorted(key_objects(store)) == sorted(f"keys/{each.id}" for each in keyring.records)
    assert {each.purpose for each in keyring.records} == {Purpose.DATA, Purpose.ID}


def test_a_mirror_is_the_same_repository() -> None:
    store, owner = _with_generations(8)
    other = RecordingStore()

    for _ in range(2):
        mirror(store, other, owner)

    assert other.puts[-1] == "format.json"
    assert described_at(other) == described_at(store)
    assert generations(other, owner) == [2]
    assert load_keyring(other, owner, key_file(8)).generation == 2


def test_a_region_with_another_repository_is_no_mirror() -> None:
    store, owner = _with_generations()
    other, _ = _with_generations()
    before = dict(other.objects)

    with pytest.raises(RepositoryExists):
        mirror(store, other, owner)
    assert other.objects == before


def test_what_is_older_than_the_newest_goes() -> None:
    store, owner = _with_generations(8, 9)
    store.put("keys/" + "a" * 32, b"from before keyrings")

    for _ in range(2):
        remove_older(store, owner, 3)

    assert store.names("keys/") == [keyring_name(owner.repository, 3)]


def test_what_calls_itself_newer_removes_nothing() -> None:
    store, owner = _with_generations(8)
    store.put(keyring_name(owner.repository, 9), b"put there by who cannot open the keys")

    remove_older(store, owner, 2)

    assert generations(store, owner) == [2, 9]


def test_without_a_repository_there_is_no_description() -> None:
    with pytest.raises(RepositoryMissing, match="memory://here"):
        described_at(MemoryStore("memory://here"))


class Tidied(RecordingStore):
    """A change comes between the listing and the reading of whoever opens."""

    def get(self, name: str) -> bytes:
        if name.endswith("/00000002"):
            self.objects.pop(name, None)
        return super().get(name)


def test_a_change_that_comes_while_it_is_opened_is_no_loss() -> None:
    store, owner = _with_generations(8, 9)
    tidied = Tidied()
    tidied.objects = dict(store.objects)
    third = tidied.objects.pop(keyring_name(owner.repository, 3))

    class Late(Tidied):
        def get(self, name: str) -> bytes:
            if name.endswith("/00000002"):
                self.objects[keyring_name(owner.repository, 3)] = third
            return super().get(name)

    late = Late()
    late.objects = dict(tidied.objects)
    assert load_keyring(late, owner, key_file(9)).generation == 3


def test_a_keyring_that_is_listed_and_not_there_is_told() -> None:
    class Gone(RecordingStore):
        def get(self, name: str) -> bytes:
            if name.startswith("keys/"):
                raise ObjectMissing(f"{name} is not there")
            return super().get(name)

    store, owner = _with_generations(8)
    gone = Gone()
    gone.objects = store.objects
    with pytest.raises(ObjectMissing):
        load_keyring(gone, owner, key_file(8))


def test_newer_keys_are_given_once_and_an_older_keyring_is_told() -> None:
    store, owner = _with_generations(7)
    newer = NewerKeys(store, owner, key_file(7), 1)

    found = newer()
    assert found is not None
    newest = load_keyring(store, owner, key_file(7)).records
    assert [each.id for each in found] == [each.id for each in newest]
    assert newer() is None
    store.put(keyring_name(owner.repository, 3), b"of a master that is not ours")
    with pytest.raises(Damaged):
        newer()
    store.delete(keyring_name(owner.repository, 3))
    store.delete(keyring_name(owner.repository, 2))
    with pytest.raises(RolledBack, match="from generation 2 to 1"):
        newer()
    store.delete(keyring_name(owner.repository, 1))
    with pytest.raises(Damaged, match="lost its keys"):
        newer()
    store.put(DESTROYED, b"{}")
    with pytest.raises(KeyUnusable, match="were destroyed"):
        newer()


def test_the_primary_catches_up_with_the_newest_of_any_region() -> None:
    primary, owner = _with_generations()
    second, third = primary.copy(), primary.copy()
    for store, generation in ((second, 2), (third, 3)):
        keyring = replace(first_keyring(NOON), generation=generation)
        name = keyring_name(owner.repository, generation)
        store.put(name, seal_keyring(keyring, [key_file(8)], owner))

    with pytest.raises(KeyRefused):  # what our master does not open is brought nowhere
        catch_up(primary, [second, third], owner, key_file(7))
    assert generations(primary, owner) == [1]
    catch_up(primary, [second, third], owner, key_file(8))

    assert generations(primary, owner) == [1, 3]
    assert newest_keyring(primary, owner) == newest_keyring(third, owner)


def test_two_keyrings_of_one_generation_are_told_and_both_stay() -> None:
    primary, owner = _with_generations(8)
    other, _ = _with_generations()
    other.objects = {**primary.objects, keyring_name(owner.repository, 2): b"another"}
    before = dict(other.objects)

    with pytest.raises(Damaged, match="without the other"):
        mirror(primary, other, owner)
    assert other.objects == before


def test_a_destroyed_region_gets_no_keys_from_another() -> None:
    primary, owner = _with_generations(7)
    other = RecordingStore()
    other.put(DESTROYED, b"{}")

    for one, two in ((primary, other), (other, primary)):
        with pytest.raises(KeyUnusable, match="were destroyed"):
            catch_up(one, [two], owner, key_file(7))
