"""Where a repository's keyrings are: written one after another, and only the newest counts."""

from __future__ import annotations

import logging
from contextlib import suppress

from kryonix_backup.crypto.keyring import Keyring, open_keyring
from kryonix_backup.crypto.keys import Owner, open_key
from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.errors import (
    Damaged,
    KeyUnusable,
    KryonixError,
    ObjectExists,
    ObjectMissing,
    RepositoryExists,
    RepositoryMissing,
)
from kryonix_backup.repository.layout import (
    DESTROYED,
    FORMAT,
    KEYS,
    Format,
    keyring_name,
    keyrings_of,
)
from kryonix_backup.storage.store import ObjectStore

log = logging.getLogger(__name__)


def described_at(store: ObjectStore) -> Format:
    """What the repository at a store says of itself; raises RepositoryMissing and Damaged."""
    try:
        return Format.from_bytes(store.get(FORMAT))
    except ObjectMissing as error:
        raise RepositoryMissing(f"there is no repository at {store.address}") from error


def generations(store: ObjectStore, owner: Owner) -> list[int]:
    """The generations that are there, in order; names that are none are left aside."""
    folder = keyrings_of(owner.repository)
    ends = [info.name.removeprefix(folder) for info in store.list(folder)]
    return sorted(int(end) for end in ends if len(end) == 8 and end.isdecimal())


def newest_keyring(store: ObjectStore, owner: Owner) -> tuple[str, bytes] | None:
    """The name and the content of the newest keyring; None where there is none."""
    found = generations(store, owner)
    if not found:
        return None
    name = keyring_name(owner.repository, found[-1])
    return name, store.get(name)


def load_keyring(store: ObjectStore, owner: Owner, master: KeyStore) -> Keyring:
    """
    The keys that count.

    An older generation never stands in for the newest: it may say active of a key that was
    suspended since. Raises KeyRefused when the master is not the one of the newest, and Damaged.
    """
    newest = newest_keyring(store, owner)
    if newest is not None:
        return open_keyring(*newest, owner, master)
    return _from_key_objects(store, owner, master)


def _from_key_objects(store: ObjectStore, owner: Owner, master: KeyStore) -> Keyring:
    """The keys of a repository from before keyrings, as generation 0."""
    records, refused = [], None
    for info in sorted(store.list(KEYS)):
        if info.name.count("/") > 1:  # the keyring of a creation that was cut short
            continue
        try:
            records.append(open_key(info.name, store.get(info.name), owner, master))
        except KryonixError as error:
            # A creation that was cut short leaves keys of another repository id behind.
            log.info("%s is left aside: %s", info.name, error.message)
            refused = refused or error
    if not records and any(True for _ in store.list(DESTROYED)):
        raise KeyUnusable(
            f"the keys of the repository at {store.address} were destroyed",
            f"{DESTROYED} there says when and by whom. Nothing in it can be opened any more.",
        )
    if not records:
        raise refused or Damaged(
            f"the repository at {store.address} has lost its keys, or has the format.json of"
            " another"
        )
    created = min(record.created for record in records)
    return Keyring(0, created, created, tuple(records), ())


def mirror(primary: ObjectStore, other: ObjectStore, owner: Owner) -> None:
    """
    Make another region hold the same repository: the newest keyring, then what describes it.

    Raises RepositoryExists where another repository is there.
    """
    try:
        there = described_at(other)
    except RepositoryMissing:
        there = None
    if there is not None and there.repository != owner.repository:
        raise RepositoryExists(
            f"{other.address} holds another repository than {primary.address}",
            "Use an empty bucket or directory for this region.",
        )
    newest = newest_keyring(primary, owner)
    if newest is not None:
        with suppress(ObjectExists):
            other.put(*newest)
    if there is None:
        with suppress(ObjectExists):
            other.put(FORMAT, primary.get(FORMAT))


def remove_older(store: ObjectStore, owner: Owner) -> None:
    """Remove every key that is not in the newest keyring, for good."""
    older = generations(store, owner)[:-1]
    for generation in older:
        store.delete(keyring_name(owner.repository, generation))
    for name in key_objects(store):
        store.delete(name)


def key_objects(store: ObjectStore) -> list[str]:
    """The names of keys that are kept in no keyring."""
    return [info.name for info in store.list(KEYS) if info.name.count("/") == 1]
