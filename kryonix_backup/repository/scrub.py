"""Reading a whole pack again: its hash, every frame in it and every chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kryonix_backup.crypto.seal import Header, Sealer
from kryonix_backup.errors import KeyUnusable, KryonixError, ObjectMissing
from kryonix_backup.model import Blob, ChunkId
from kryonix_backup.repository.layout import pack_name
from kryonix_backup.repository.pack import PackInfo, Place, open_frame, pack_id, parse_directory
from kryonix_backup.repository.reader import Shelf


class Scrubbed(NamedTuple):
    """What was found in one pack; ``reason`` is empty when all is well."""

    pack: PackInfo
    reason: str
    bad: frozenset[ChunkId]


def scrub_pack(shelf: Shelf, pack: PackInfo) -> Scrubbed:
    """
    Read, open and hash everything in a pack, and hold the index against its directory.

    A pack that is not what it was is told by its reason and the chunks in it that do not open;
    what the store refuses is raised.
    """
    name = pack_name(pack.id)
    try:
        body = memoryview(shelf.store.get(name))
    except ObjectMissing:
        return Scrubbed(pack, "is missing", _indexed(shelf, pack))
    reason = "" if pack_id(body) == pack.id else "was changed since it was written"
    try:
        Header.from_bytes(body, name)
        places = parse_directory(body, name, shelf.keys, shelf.repository)
    except KeyUnusable:
        raise  # nothing is wrong with it: an operator forbade to open it
    except KryonixError as error:
        return Scrubbed(pack, reason or error.message, _indexed(shelf, pack))
    bad = _bad_chunks(shelf, pack, body, places)
    if not all(_is_indexed(shelf, pack, chunk, place) for chunk, place in places):
        reason = reason or "holds chunks that the index does not name, or names elsewhere"
    if bad:
        reason = reason or f"{len(bad)} of its chunks do not open"
    return Scrubbed(pack, reason, bad)


def _bad_chunks(
    shelf: Shelf, pack: PackInfo, body: memoryview, places: Sequence[tuple[ChunkId, Place]]
) -> frozenset[ChunkId]:
    sealer = Sealer(pack.header, shelf.keys, shelf.repository, "pack")
    bad: set[ChunkId] = set()
    opened, raw = None, memoryview(b"")
    for chunk, place in places:
        if place.frame != opened:
            opened, raw = place.frame, _open(sealer, place, body, pack)
        data = raw[place.start : place.start + place.length]
        if len(data) != place.length or shelf.namer(data) != chunk:
            bad.add(chunk)
    return frozenset(bad)


def _open(sealer: Sealer, place: Place, body: memoryview, pack: PackInfo) -> memoryview:
    frame = place.frame
    sealed: Blob = body[frame.offset : frame.offset + frame.sealed]
    try:
        return memoryview(open_frame(sealer, frame, sealed, pack_name(pack.id)))
    except KryonixError:
        return memoryview(b"")  # its chunks then fail by their length


def _is_indexed(shelf: Shelf, pack: PackInfo, chunk: ChunkId, place: Place) -> bool:
    return any(
        found.pack.id == pack.id and found.place == place for found in shelf.index.find_all(chunk)
    )


def _indexed(shelf: Shelf, pack: PackInfo) -> frozenset[ChunkId]:
    return frozenset(chunk for chunk, found in shelf.index if found.pack.id == pack.id)
