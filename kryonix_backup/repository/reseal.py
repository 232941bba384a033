"""
Sealing anew, by the key that seals now, what another key sealed.

A pack becomes a new pack of the same frames, which is written and indexed before the index forgets
the old one, and that before it is removed; every other object keeps its name and is replaced in one
step. So it can be stopped at any moment and run again, beside backups; a restore that meets a
removed pack is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from kryonix_backup.crypto.seal import HEADER_BYTES, Header, Kind, open_object, seal_object
from kryonix_backup.errors import Damaged, FormatUnsupported, ObjectExists, ObjectMissing
from kryonix_backup.model import ChunkId, KeyId, PackId
from kryonix_backup.repository.index import Segment
from kryonix_backup.repository.layout import FORMAT, INDEX, KEYS, PACKS, pack_name
from kryonix_backup.repository.log import reseal_segment
from kryonix_backup.repository.pack import PackInfo, Place, parse_directory, reseal_pack
from kryonix_backup.repository.writer import Vault, write_segment
from kryonix_backup.storage.store import ObjectInfo

_READERS = 8
_BATCH = 64
"""Packs that are there twice for a while, up to 64 MiB each."""


@dataclass(frozen=True, slots=True)
class Resealer:
    """
    Finds and replaces what a key sealed in one region of one tenant.

    ``segment`` gives the content of an index object; the vault trusts the packs that are whole.
    """

    vault: Vault
    segment: Callable[[str], Segment]

    def sealed_by(self, key: KeyId) -> list[ObjectInfo]:
        """Every object that the key sealed, packs first; reads the first bytes of every object."""
        objects = [
            info
            for info in self.vault.store.list("")
            if info.name != FORMAT and not info.name.startswith(KEYS)
        ]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="headers") as pool:
            keys = pool.map(self._key_of, objects)
            found = [info for info, sealed in zip(objects, keys, strict=True) if sealed == key]
        return sorted(found, key=lambda info: (not info.name.startswith(PACKS), info.name))

    def reseal(self, objects: Sequence[ObjectInfo]) -> Iterator[ObjectInfo]:
        """
        Seal these objects anew, packs first, and give each when it is done.

        Raises Damaged for one that does not open: it is left as it is.
        """
        packs = [info for info in objects if info.name.startswith(PACKS)]
        for start in range(0, len(packs), _BATCH):
            batch = packs[start : start + _BATCH]
            self._reseal_packs(batch)
            yield from batch
        self._write_index(set(), {info.name for info in objects})
        for info in objects:
            if not info.name.startswith((PACKS, INDEX)):
                self._replace(info.name)
            if not info.name.startswith(PACKS):
                yield info

    def _key_of(self, info: ObjectInfo) -> KeyId | None:
        try:
            start = self.vault.store.get_range(info.name, 0, HEADER_BYTES)
            return Header.from_bytes(start, info.name).key_id
        except (Damaged, FormatUnsupported, ObjectMissing):
            return None  # no object of ours, or gone since the listing

    def _reseal_packs(self, batch: Sequence[ObjectInfo]) -> None:
        vault = self.vault
        written: list[tuple[PackInfo, list[tuple[ChunkId, Place]]]] = []
        for info in batch:
            body = memoryview(vault.store.get(info.name))
            chunks = parse_directory(body, info.name, vault.keys, vault.repository)
            if not self._is_elsewhere(chunks):
                pack, resealed, places = reseal_pack(body, info.name, vault.keys, vault.repository)
                with suppress(ObjectExists):
                    vault.store.put(pack_name(pack.id), resealed)
                written.append((pack, places))
        if written:
            write_segment(vault, Segment.of(written))
        self._write_index({_pack(info) for info in batch}, set())
        for info in batch:
            vault.store.delete(info.name)

    def _is_elsewhere(self, chunks: Sequence[tuple[ChunkId, Place]]) -> bool:
        """Whether a run that was cut short has written and indexed all of these already."""
        current = self.vault.keys.current.id
        return all(
            any(
                found.pack.header.key_id == current and found.pack.id in self.vault.trusted
                for found in self.vault.index.find_all(chunk)
            )
            for chunk, _ in chunks
        )

    def _write_index(self, without: set[PackId], anew: set[str]) -> None:
        """Write every part of the index anew that names one of these packs, or is one of these."""
        for info in list(self.vault.store.list(INDEX)):
            segment = self.segment(info.name)
            kept = segment.without(without)
            if kept.count == segment.count and info.name not in anew:
                continue
            if kept.count:
                write_segment(self.vault, kept)
            self.vault.store.delete(info.name)

    def _replace(self, name: str) -> None:
        vault = self.vault
        try:
            sealed = vault.store.get(name)
        except ObjectMissing:
            return  # removed since the listing
        kind = Header.from_bytes(sealed, name).kind
        if kind is Kind.LOG:
            anew = bytes(reseal_segment(name, sealed, vault.keys, vault.repository))
        else:
            plain = open_object(kind, name, sealed, vault.keys, vault.repository)
            anew = seal_object(kind, name, plain, vault.keys, vault.repository)
        vault.store.replace(name, anew)


def _pack(info: ObjectInfo) -> PackId:
    return PackId(info.name.rpartition("/")[2])
