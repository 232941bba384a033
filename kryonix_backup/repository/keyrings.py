"""Where a repository's keyrings are: written one after another, and only the newest counts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from kryonix_backup.crypto.keyring import Keyring, open_keyring
from kryonix_backup.crypto.keys import KeyRecord, Owner, open_key
from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.errors import (
    Damaged,
    KeyRefused,
    KeyUnusable,
    KryonixError,
    ObjectExists,
    ObjectMissing,
    RepositoryExists,
    RepositoryMissing,
    RolledBack,
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


def newest_generation(store: ObjectStore, owner: Owner) -> int:
    """The generation that counts; 0 where there is no keyring."""
    return max(generations(store, owner), default=0)


def newest_keyring(store: ObjectStore, owner: Owner) -> tuple[str, bytes] | None:
    """The name and the content of the newest keyring; None where there is none."""
    while True:
        newest = newest_generation(store, owner)
        if not newest:
            return None
        name = keyring_name(owner.repository, newest)
        try:
            return name, store.get(name)
        except ObjectMissing:
            if newest_generation(store, owner) == newest:
                raise  # listed and not there; else a change came and removed it


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
        raise _destroyed(store)
    if not records:
        raise refused or Damaged(
            f"the repository at {store.address} has lost its keys, or has the format.json of"
            " another"
        )
    created = min(record.created for record in records)
    return Keyring(0, created, created, tuple(records), ())


class NewerKeys:
    """Gives the records of the newest keyring whenever there is another than the one before."""

    def __init__(self, store: ObjectStore, owner: Owner, master: KeyStore, generation: int) -> None:
        """``generation`` is the one that is known."""
        self._store = store
        self._owner = owner
        self._master = master
        self._known = generation

    def __call__(self) -> Sequence[KeyRecord] | None:
        """
        The records, or None where they are known.

        Raises KeyUnusable where the keys were destroyed, RolledBack where an older keyring stands
        in for the newest, and what `load_keyring` raises.
        """
        newest = newest_generation(self._store, self._owner)
        if newest and newest == self._known:
            return None
        keyring = load_keyring(self._store, self._owner, self._master)
        if keyring.generation < self._known:
            raise RolledBack(
                f"the keys at {self._store.address} were set back from generation {self._known} to"
                f" {keyring.generation}"
            )
        self._known = keyring.generation
        return keyring.records


def mirror(primary: ObjectStore, other: ObjectStore, owner: Owner) -> None:
    """
    Make another region hold the same repository: the newest keyring, then what describes it.

    Raises RepositoryExists where another repository is there, and Damaged where the region has
    other keys of the same generation.
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
        _put_same(other, *newest, primary.address)
    if there is None:
        with suppress(ObjectExists):
            other.put(FORMAT, primary.get(FORMAT))


def catch_up(
    primary: ObjectStore, others: Sequence[ObjectStore], owner: Owner, master: KeyStore
) -> None:
    """
    Give the primary region the newest keyring of any region: only the newest counts.

    Another region is ahead where keys were changed while the primary was away, or where the primary
    was set back. Raises KeyUnusable where the keys were destroyed in any region, and KeyRefused
    where the master does not open the keyring: it is then brought nowhere.
    """
    for store in (primary, *others):
        if any(True for _ in store.list(DESTROYED)):
            raise _destroyed(store)
    ahead = max(others, key=lambda store: newest_generation(store, owner), default=primary)
    newest = newest_keyring(ahead, owner)
    if newest is not None and newest_generation(ahead, owner) > newest_generation(primary, owner):
        try:
            keyring = open_keyring(*newest, owner, master)
        except (Damaged, KeyRefused) as error:
            raise type(error)(f"{ahead.address}: {error.message}", error.hint) from error
        log.warning(
            "%s has newer keys than %s, which gets generation %d",
            ahead.address, primary.address, keyring.generation,
        )  # fmt: skip
        _put_same(primary, *newest, ahead.address)


def _put_same(store: ObjectStore, name: str, body: bytes, origin: str) -> None:
    try:
        store.put(name, body)
    except ObjectExists as error:
        if store.get(name) != body:
            raise Damaged(
                f"{name} at {store.address} is not the one at {origin}: the tenant's keys were"
                " changed in each region without the other",
                "Find out which of the two holds ('kryonix keys ID show' with --region), move the"
                " other object away, then run 'kryonix keys ID settle'.",
            ) from error


def _destroyed(store: ObjectStore) -> KeyUnusable:
    return KeyUnusable(
        f"the keys of the repository at {store.address} were destroyed",
        f"{DESTROYED} there says when and by whom. What is sealed by them opens no more; where"
        " another region still has them, run 'kryonix keys ID destroy' again. If nobody of yours"
        " destroyed them, and snapshots open still, remove that object: anybody can write it.",
    )


def remove_older(store: ObjectStore, owner: Owner, than: int) -> None:
    """
    Remove every key that is in no keyring from that generation on, for good.

    The generation is one that was opened: what else calls itself newer removes nothing.
    """
    for generation in generations(store, owner):
        if generation < than:
            store.delete(keyring_name(owner.repository, generation))
    for name in key_objects(store):
        store.delete(name)


def key_objects(store: ObjectStore) -> list[str]:
    """The names of keys that are kept in no keyring."""
    return [info.name for info in store.list(KEYS) if info.name.count("/") == 1]
