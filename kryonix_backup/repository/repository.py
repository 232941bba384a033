"""One tenant's repository, opened."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from kryonix_backup.clock import Clock
from kryonix_backup.crypto.keyring import Keyring, first_keyring, seal_keyring
from kryonix_backup.crypto.keys import Owner, TenantKeys
from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.crypto.naming import ChunkNamer
from kryonix_backup.crypto.seal import Kind
from kryonix_backup.errors import (
    Damaged,
    KeyUnusable,
    ObjectExists,
    ObjectMissing,
    RepositoryError,
    RepositoryExists,
    SnapshotUnknown,
)
from kryonix_backup.model import (
    Blob,
    ChunkId,
    Entry,
    PackId,
    RestoreId,
    SnapshotId,
    SourceName,
    TenantId,
    is_run_id,
)
from kryonix_backup.repository.audit import AuditBook, open_book
from kryonix_backup.repository.content import refs_of
from kryonix_backup.repository.index import Index, Segment
from kryonix_backup.repository.keyrings import (
    NewerKeys,
    described_at,
    load_keyring,
    newest_generation,
)
from kryonix_backup.repository.layout import (
    FORMAT,
    INDEX,
    INTENTS,
    PACKS,
    RESTORES,
    SNAPSHOTS,
    Format,
    journal_name,
    keyring_name,
    new_repository_id,
    pack_name,
    snapshot_name,
)
from kryonix_backup.repository.log import LogBook
from kryonix_backup.repository.pack import PackInfo, Place, read_directory
from kryonix_backup.repository.reader import ChunkReader, Shelf
from kryonix_backup.repository.reseal import Resealer
from kryonix_backup.repository.scrub import Scrubbed, scrub_pack
from kryonix_backup.repository.sealed import open_content, seal_content
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.repository.tree import Root, TreeReader
from kryonix_backup.repository.writer import ChunkWriter, Vault, write_segment
from kryonix_backup.storage.store import ObjectStore

log = logging.getLogger(__name__)

_FETCHERS = 8
_IN_MEMORY = f"{INDEX}in-memory"


class Repository:
    """The chunks and snapshots of exactly one tenant; no method takes a tenant."""

    def __init__(
        self, store: ObjectStore, tenant: TenantId, described: Format, keyring: Keyring,
        master: KeyStore,
    ) -> None:  # fmt: skip
        self.store = store
        self.tenant = tenant
        self.id = described.repository
        self.created = described.created
        self._owner = Owner(described.repository, tenant)
        newer = NewerKeys(store, self._owner, master, keyring.generation)
        self._keys = TenantKeys(keyring.records, newer)
        self.namer = ChunkNamer(self._keys.id_key)
        self._index = Index()
        self._index_lock = threading.Lock()
        self._recovered: set[PackId] = set()
        """Packs whose chunks are known from their own directories, and from no index object."""

    @classmethod
    def create(
        cls, store: ObjectStore, tenant: TenantId, master: KeyStore, clock: Clock
    ) -> Repository:
        """
        A new repository where there is none.

        The keys are written first and `format.json` last, so that a creation that was cut short
        leaves nothing that looks like a repository. Raises RepositoryExists.
        """
        store.create()
        if any(True for _ in store.list(FORMAT)):
            raise RepositoryExists(f"{store.address} holds a repository already")
        now = clock.now()
        described = Format(new_repository_id(), now)
        keyring = seal_keyring(first_keyring(now), [master], Owner(described.repository, tenant))
        store.put(keyring_name(described.repository, 1), keyring)
        try:
            store.put(FORMAT, described.to_bytes())
        except ObjectExists as error:
            raise RepositoryExists(
                f"{store.address} was taken by another at this moment"
            ) from error
        return cls.open(store, tenant, master)

    @classmethod
    def open(cls, store: ObjectStore, tenant: TenantId, master: KeyStore) -> Repository:
        """
        The repository that is there.

        Raises RepositoryMissing, FormatUnsupported, Damaged, and KeyRefused when the master key
        is not the one of this tenant.
        """
        described = described_at(store)
        keyring = load_keyring(store, Owner(described.repository, tenant), master)
        return cls(store, tenant, described, keyring, master)

    def generation(self) -> int:
        """Of the keyring that counts now: others may have changed keys since this was opened."""
        return newest_generation(self.store, self._owner)

    # ------------------------------------------------------------------ snapshots

    def snapshot_ids(self) -> list[SnapshotId]:
        """Every snapshot that counts, oldest first."""
        self._keys.refresh()
        names = (info.name.removeprefix(SNAPSHOTS) for info in self.store.list(SNAPSHOTS))
        return sorted(SnapshotId(name) for name in names if is_run_id(name))

    def snapshot(self, wanted: str) -> Snapshot:
        """The snapshot of that id, of the one id that starts so, or the ``latest``."""
        ids = self.snapshot_ids()
        if wanted == "latest":
            fitting = ids[-1:]
        else:
            fitting = [each for each in ids if each == wanted] or [
                each for each in ids if wanted and (each.startswith(wanted) or
                                                    each.partition("-")[2].startswith(wanted))
            ]  # fmt: skip
        if not fitting:
            there = "it has none yet" if not ids else f"the newest of {len(ids)} is {ids[-1]}"
            raise SnapshotUnknown(f"the repository has no snapshot {wanted!r}; {there}")
        if len(fitting) > 1:
            raise SnapshotUnknown(f"{wanted!r} fits {len(fitting)} snapshots; write more of the id")
        return self._snapshot(fitting[0])

    def snapshots(self) -> Iterator[Snapshot]:
        """
        Every snapshot, oldest first, fetched a few at a time.

        A damaged manifest hides no other one: it is passed over with a warning, and `verify` and
        `snapshot` tell what is wrong with it.
        """
        with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="snapshots") as pool:
            found = pool.map(self.whole_snapshot, self.snapshot_ids())
            yield from (snapshot for snapshot in found if snapshot is not None)

    def whole_snapshot(self, snapshot: SnapshotId) -> Snapshot | None:
        """The snapshot of that id; None, with a warning, where its manifest is damaged."""
        try:
            return self._snapshot(snapshot)
        except (Damaged, ObjectMissing) as error:
            log.warning("passed over a snapshot that cannot be read: %s", error.message)
            return None

    def _snapshot(self, snapshot: SnapshotId) -> Snapshot:
        name = snapshot_name(snapshot)
        loaded = Snapshot.from_plain(self._load(Kind.SNAPSHOT, name))
        if loaded.id != snapshot or loaded.tenant != self.tenant:
            raise Damaged(f"{name} is the manifest of another snapshot or tenant")
        return loaded

    def publish(self, snapshot: Snapshot) -> None:
        """
        Make a snapshot count; everything that it names must be durable by now.

        Raises KeyUnusable as `TenantKeys.check_sealed` does, of the key that sealed until now.
        """
        self._keys.check_sealed([self._keys.current.id])
        self._keep(Kind.SNAPSHOT, snapshot_name(snapshot.id), snapshot.to_plain())

    # ------------------------------------------------------------------ restore journals

    def write_journal(self, restore: RestoreId, step: int, record: Mapping[str, Any]) -> None:
        """Write one record of a restore's journal; raises ObjectExists for a step done before."""
        self._keep(Kind.JOURNAL, journal_name(restore, step), record)

    def journal(self, restore: RestoreId) -> list[dict[str, Any]]:
        """The records of a restore, in the order of their steps; empty for an unknown one."""
        infos = sorted(self.store.list(f"{RESTORES}{restore}/"))
        return [self._load(Kind.JOURNAL, info.name) for info in infos]

    # ------------------------------------------------------------------ transaction logs

    def log(self, source: SourceName) -> LogBook:
        """The transaction log of one source."""
        self._keys.refresh()
        return LogBook(self.store, self._keys, self.id, source, self.reader)

    def audit(self) -> AuditBook:
        """The chain of records of what was done."""
        self._keys.refresh()
        return open_book(self.store, self._owner, self._keys)

    # ------------------------------------------------------------------ chunks

    def load_index(self) -> Index:
        """
        Every segment that was written by now; those seen before are not fetched again.

        Where one is gone that was seen, what it named was sealed anew, and all are read again. A
        damaged one is set aside, and the packs that no other one names are asked themselves: the
        loss of an index object costs time, and the next backup writes it anew.
        """
        with self._index_lock:
            while not self._read_index():
                log.info("the index was written anew while it was read")
            return self._index

    def _read_index(self) -> bool:
        """False where a segment went between the listing and the reading."""
        names = {info.name for info in self.store.list(INDEX)}
        if not self._index.names <= names | {_IN_MEMORY}:
            self._index = Index()
            self._recovered.clear()
        new = sorted(names - self._index.names)
        try:
            with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="index") as pool:
                segments = [each for each in pool.map(self._segment, new) if each is not None]
        except ObjectMissing:
            if names <= {info.name for info in self.store.list(INDEX)}:
                raise  # listed and not there
            return False
        self._index.add(dict(segments))
        if self._index.damaged.keys() & new:
            self._recover()
        return True

    def _segment(self, name: str) -> tuple[str, Segment] | None:
        try:
            return name, self._index_object(name)
        except KeyUnusable:
            raise  # nothing is damaged: an operator forbade to open it
        except RepositoryError as error:
            log.warning("%s is set aside: %s", name, error.message)
            self._index.damaged[name] = error.message
            return None

    def _recover(self) -> None:
        self._index.names.update(self._index.damaged)
        found = self._directories(self._stored_packs())
        if found:
            self._recovered.update(info.id for info, _ in found)
            self._index.add({_IN_MEMORY: Segment.of(found)})

    def reader(self) -> ChunkReader:
        """A way to the content of chunks."""
        return ChunkReader(self._shelf())

    def scrubber(self) -> Callable[[PackInfo], Scrubbed]:
        """A way to read everything in a pack again; what is wrong is told, not raised."""
        return partial(scrub_pack, self._shelf())

    def resealer(self) -> Resealer:
        """A way to seal anew what a compromised key sealed."""
        self._keys.refresh()
        there = self._stored_packs()
        vault = Vault(self.store, self._keys, self.id, self.namer, self.load_index(), frozenset())
        self._take_up(there, vault)
        whole = frozenset(_whole(there, vault.index))
        return Resealer(replace(vault, trusted=whole), self._index_object)

    def _index_object(self, name: str) -> Segment:
        return Segment.from_bytes(self._open(Kind.INDEX, name), name)

    def _shelf(self) -> Shelf:
        self._keys.refresh()
        return Shelf(self.store, self._keys, self.id, self.namer, self.load_index())

    def tree(self, root: Root, reader: ChunkReader) -> TreeReader:
        """A tree that a snapshot names."""
        return TreeReader(root, reader.read)

    def content(self, root: Root, path: bytes) -> Iterator[Blob]:
        """
        The content of the entry at a path of a tree, piece by piece.

        Raises Damaged where there is none, also of what it names.
        """
        reader = self.reader()
        entry = next(self.tree(root, reader).entries(path), None)
        if entry is None or entry.path != path:
            raise Damaged(f"a snapshot lacks its entry {os.fsdecode(path)!r}")
        for piece in reader.stream(refs_of(entry, reader.read)):
            assert not isinstance(piece, Entry)
            yield piece

    def writer(self, *, verify: bool = True) -> ChunkWriter:
        """
        A way to keep chunks; what is stored but in no index, after a crash, is taken up first.

        Only chunks of packs that are there in full length, and that no maintenance is about to
        delete, are not stored again: a lost pack is healed by the next backup of the same data.
        """
        self._keys.refresh()
        there = self._stored_packs()
        vault = Vault(self.store, self._keys, self.id, self.namer, self.load_index(), frozenset())
        self._take_up(there, vault)
        trusted = _whole(there, vault.index) - self._marked()
        return ChunkWriter(replace(vault, trusted=frozenset(trusted)), verify=verify)

    def present_packs(self) -> set[PackId]:
        """The packs that the index names and that are there in full length."""
        return _whole(self._stored_packs(), self.load_index())

    def _stored_packs(self) -> dict[str, int]:
        return {info.name: info.size for info in self.store.list(PACKS)}

    def _take_up(self, there: Mapping[str, int], vault: Vault) -> None:
        found = self._directories(there)
        if found:
            log.info("took up %d packs that no index names", len(found))
            write_segment(vault, Segment.of(found))
            self._recovered.difference_update(info.id for info, _ in found)

    def _directories(
        self, there: Mapping[str, int]
    ) -> list[tuple[PackInfo, list[tuple[ChunkId, Place]]]]:
        """What is in the packs that no index object names."""
        known = {pack_name(pack) for pack in self._index.packs().keys() - self._recovered}
        found = []
        for name in sorted(set(there) - known):
            pack = PackId(name.rpartition("/")[2])
            if name != pack_name(pack):
                continue
            try:
                found.append(
                    read_directory(self.store, name, pack, there[name], self._keys, self.id)
                )
            except KeyUnusable:
                raise
            except (RepositoryError, ObjectMissing) as error:
                log.warning("%s is left aside: %s", name, error.message)
        return found

    def _marked(self) -> set[PackId]:
        """Packs that maintenance has announced to delete."""
        marked: set[PackId] = set()
        for info in self.store.list(INTENTS):
            marked.update(self._load(Kind.INTENT, info.name)["packs"])
        return marked

    # ------------------------------------------------------------------ sealed objects

    def _keep(self, kind: Kind, name: str, record: Mapping[str, Any]) -> None:
        content = json.dumps(record).encode()
        self.store.put(name, seal_content(kind, name, content, self._keys, self.id))

    def _load(self, kind: Kind, name: str) -> dict[str, Any]:
        try:
            record = json.loads(self._open(kind, name))
        except ValueError as error:
            raise Damaged(f"{name} has the wrong form") from error
        if not isinstance(record, dict):
            raise Damaged(f"{name} has the wrong form")
        return record

    def _open(self, kind: Kind, name: str) -> bytes:
        return open_content(kind, name, self.store.get(name), self._keys, self.id)


def _whole(there: Mapping[str, int], index: Index) -> set[PackId]:
    """The packs that the index names and that are there in full length."""
    return {
        pack.id for pack in index.packs().values() if there.get(pack_name(pack.id)) == pack.size
    }
