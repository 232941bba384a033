"""Only the newest keyring counts, and what is left of another creation is no key of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.crypto.keyring import first_keyring, seal_keyring
from kryonix_backup.crypto.keys import Owner, Purpose
from kryonix_backup.crypto.stores.root import master_from
from kryonix_backup.errors import KeyRefused, RepositoryExists, RepositoryMissing
from kryonix_backup.model import RepositoryId
from kryonix_backup.repository.keyrings import (
    described_at,
    generations,
    key_objects,
    load_keyring,
    mirror,
    newest_keyring,
    remove_older,
)
from kryonix_backup.repository.layout import keyring_name
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
        remove_older(store, owner)

    assert store.names("keys/") == [keyring_name(owner.repository, 3)]


def test_without_a_repository_there_is_no_description() -> None:
    with pytest.raises(RepositoryMissing, match="memory://here"):
        described_at(MemoryStore("memory://here"))
