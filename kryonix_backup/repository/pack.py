"""
A pack: frames, a sealed directory of them, the directory's length.

    header | frame | frame | … | sealed directory | length of it (4 bytes) | KRYE

A frame is sealed at its own offset, with its codec and raw length bound to it; a directory lists
every frame and the chunks in it. Offsets and lengths are bytes, big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import NamedTuple

from blake3 import blake3

from kryonix_backup.crypto.keys import TenantKeys
from kryonix_backup.crypto.seal import (
    HEADER_BYTES,
    TAG_BYTES,
    Header,
    Kind,
    OpenFailed,
    Sealer,
    new_header,
)
from kryonix_backup.errors import Damaged
from kryonix_backup.model import CHUNK_ID_BYTES, MIB, Blob, ChunkId, PackId, RepositoryId
from kryonix_backup.repository.codec import Codec, decompress
from kryonix_backup.storage.store import ObjectStore

PACK_BYTES = 16 * MIB  # a pack is closed at the first frame that reaches this
MAX_FRAME_BYTES = 8 * MIB  # of raw bytes; a reader refuses to make room for more
MAX_CHUNKS_IN_FRAME = 0xFFFF

_END = b"KRYE"
_FRAME = struct.Struct(">IIIBH")  # offset, sealed length, raw length, codec, chunks
_CHUNK = struct.Struct(">32sI")
_BOUND = struct.Struct(">BI")  # what is bound to a frame beside its place: codec, raw length
_TAIL = struct.Struct(">I4s")
_DIRECTORY = b"directory"


class Frame(NamedTuple):
    """Where a frame is in its pack, and how it was made."""

    offset: int
    sealed: int
    raw: int
    codec: Codec

    @property
    def bound(self) -> bytes:
        """What is bound to the sealed bytes beside their place."""
        return _BOUND.pack(self.codec, self.raw)


class Place(NamedTuple):
    """Where a chunk is: its frame, and where in the frame's raw bytes."""

    frame: Frame
    start: int
    length: int


class PackInfo(NamedTuple):
    """What must be known of a pack to read from it; ``size`` in bytes."""

    id: PackId
    size: int
    header: Header


class ClosedPack(NamedTuple):
    """A pack ready to be stored. ``body`` is a view of a buffer that is used again later."""

    info: PackInfo
    body: memoryview
    chunks: list[tuple[ChunkId, Place]]


class PackWriter:
    """
    Fills one buffer with sealed frames.

    `fill` and `reopen` may run in several threads at once, on frames of their own.
    """

    def __init__(
        self, kind: Kind, buffer: mmap, keys: TenantKeys, repository: RepositoryId
    ) -> None:
        self._header = new_header(kind, keys)
        # A pack is named by its content, so the salt, not the name, sets its key apart.
        self._sealer = Sealer(self._header, keys, repository, "pack")
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._view[:HEADER_BYTES] = self._header.to_bytes()
        self._end = HEADER_BYTES
        self._directory: list[bytes] = []
        self._chunks: list[tuple[ChunkId, Place]] = []

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._end

    def room_for(self, sealed_bytes: int, chunks: int) -> bool:
        """Whether such a frame, and the directory with it, still fit into the buffer."""
        lengths = len(self._directory) * _FRAME.size + len(self._chunks) * _CHUNK.size
        directory = lengths + _FRAME.size + chunks * _CHUNK.size + 2 * TAG_BYTES + _TAIL.size
        return self._end + sealed_bytes + TAG_BYTES + directory <= len(self._buffer)

    def add(
        self, codec: Codec, packed: Blob, raw_length: int, chunks: Sequence[tuple[ChunkId, int]]
    ) -> Frame:
        """Seal one frame that holds these chunks (id, length) one after the other."""
        frame = self.reserve(codec, len(packed), raw_length, chunks)
        self.fill(frame, packed)
        return frame

    def reserve(
        self,
        codec: Codec,
        packed_bytes: int,
        raw_length: int,
        chunks: Sequence[tuple[ChunkId, int]],
    ) -> Frame:
        """The place of the next frame, which is then to be filled."""
        sealed = packed_bytes + TAG_BYTES
        frame = Frame(self._end, sealed, raw_length, codec)
        self._end += sealed
        self._directory.append(
            _FRAME.pack(frame.offset, sealed, raw_length, codec, len(chunks))
            + b"".join([_CHUNK.pack(chunk, length) for chunk, length in chunks])
        )
        start = 0
        for chunk, length in chunks:
            self._chunks.append((chunk, Place(frame, start, length)))
            start += length
        return frame

    def fill(self, frame: Frame, packed: Blob) -> None:
        """Seal a frame at its place."""
        out = self._view[frame.offset : frame.offset + frame.sealed]
        self._sealer.seal_into(frame.offset, frame.bound, packed, out)

    def reopen(self, frame: Frame) -> Blob:
        """The raw bytes of a frame of this pack, opened and unpacked again; raises Damaged."""
        sealed = self._view[frame.offset : frame.offset + frame.sealed]
        return open_frame(self._sealer, frame, sealed, "a pack that was just sealed")

    def close(self) -> ClosedPack:
        """Add the directory and the tail, and name the pack."""
        plain = b"".join(self._directory)
        sealed = len(plain) + TAG_BYTES
        out = self._view[self._end : self._end + sealed]
        self._sealer.seal_into(self._end, _DIRECTORY, plain, out)
        self._end += sealed
        self._view[self._end : self._end + _TAIL.size] = _TAIL.pack(sealed, _END)
        self._end += _TAIL.size
        body = self._view[: self._end]
        info = PackInfo(pack_id(body), self._end, self._header)
        return ClosedPack(info, body, self._chunks)


def reseal_pack(
    body: memoryview, name: str, keys: TenantKeys, repository: RepositoryId
) -> ClosedPack:
    """
    The same frames, sealed anew by the tenant's current key, at the same places.

    Raises Damaged where anything of the pack is not what was written.
    """
    header = Header.from_bytes(body, name)
    old = Sealer(header, keys, repository, "pack")
    frames: dict[Frame, list[tuple[ChunkId, int]]] = {}
    for chunk, place in parse_directory(body, name, keys, repository):
        frames.setdefault(place.frame, []).append((chunk, place.length))
    writer = PackWriter(header.kind, mmap(-1, len(body)), keys, repository)
    for frame, chunks in frames.items():
        sealed = body[frame.offset : frame.offset + frame.sealed]
        try:
            packed = old.open(frame.offset, frame.bound, sealed)
        except OpenFailed as error:
            raise Damaged(
                f"{name} at byte {frame.offset} was changed since it was written"
            ) from error
        writer.add(frame.codec, packed, frame.raw, chunks)
    return writer.close()


def pack_id(body: Blob) -> PackId:
    """The name of a pack: BLAKE3 of its sealed bytes, which can be checked without keys."""
    return PackId(blake3(body).hexdigest())


def open_frame(sealer: Sealer, frame: Frame, sealed: Blob, where: str) -> Blob:
    """The raw bytes of one frame; raises Damaged."""
    if len(sealed) != frame.sealed:
        raise Damaged(f"{where} is cut short: {len(sealed)} of {frame.sealed} bytes are there")
    if not 0 <= frame.raw <= MAX_FRAME_BYTES:
        raise Damaged(f"{where} announces {frame.raw} bytes, more than any frame holds")
    try:
        packed = sealer.open(frame.offset, frame.bound, sealed)
    except OpenFailed as error:
        raise Damaged(f"{where} was changed since it was written") from error
    try:
        return decompress(frame.codec, packed, frame.raw)
    except Damaged as error:
        raise Damaged(f"{where}: {error.message}") from error


def read_directory(
    store: ObjectStore,
    name: str,
    pack: PackId,
    size: int,
    keys: TenantKeys,
    repository: RepositoryId,
) -> tuple[PackInfo, list[tuple[ChunkId, Place]]]:
    """
    What a stored pack holds, without the index; reads its two ends only.

    Raises Damaged when one of them is not what was written.
    """
    start = store.get_range(name, 0, HEADER_BYTES)
    tail = store.get_range(name, max(0, size - _TAIL.size), _TAIL.size)
    sealed = store.get_range(name, _directory_at(tail, size, name), _directory_bytes(tail))
    header = Header.from_bytes(start, name)
    return PackInfo(pack, size, header), _directory(
        header, sealed, size - _TAIL.size - len(sealed), name, keys, repository
    )


def parse_directory(
    body: memoryview, name: str, keys: TenantKeys, repository: RepositoryId
) -> list[tuple[ChunkId, Place]]:
    """The directory of a whole pack in memory; raises Damaged."""
    header = Header.from_bytes(body, name)
    tail = body[-_TAIL.size :]
    at = _directory_at(tail, len(body), name)
    sealed = body[at : at + _directory_bytes(tail)]
    return _directory(header, sealed, at, name, keys, repository)


def _directory_bytes(tail: Blob) -> int:
    sealed, _ = _TAIL.unpack(tail)
    return int(sealed)


def _directory_at(tail: Blob, size: int, name: str) -> int:
    if len(tail) != _TAIL.size:
        raise Damaged(f"{name} is cut short")
    sealed, magic = _TAIL.unpack(tail)
    at = size - _TAIL.size - sealed
    if magic != _END or at < HEADER_BYTES or sealed < TAG_BYTES:
        raise Damaged(f"{name} is cut short, or longer than it was written")
    return int(at)


def _directory(
    header: Header, sealed: Blob, at: int, name: str, keys: TenantKeys, repository: RepositoryId
) -> list[tuple[ChunkId, Place]]:
    if header.kind not in (Kind.DATA_PACK, Kind.TREE_PACK):
        raise Damaged(f"{name} is not a pack")
    try:
        plain = Sealer(header, keys, repository, "pack").open(at, _DIRECTORY, sealed)
    except OpenFailed as error:
        raise Damaged(f"the directory of {name} was changed since it was written") from error
    try:
        return list(_places(plain))
    except (struct.error, ValueError) as error:  # sealed by the tenant's key, yet not a directory
        raise Damaged(f"the directory of {name} has the wrong form") from error


def _places(plain: bytes) -> Iterator[tuple[ChunkId, Place]]:
    at = 0
    while at < len(plain):
        offset, sealed, raw, codec, count = _FRAME.unpack_from(plain, at)
        at += _FRAME.size
        frame, start = Frame(offset, sealed, raw, Codec(codec)), 0
        for _ in range(count):
            chunk, length = _CHUNK.unpack_from(plain, at)
            at += _CHUNK.size
            yield ChunkId(chunk), Place(frame, start, length)
            start += length


assert _CHUNK.size == CHUNK_ID_BYTES + 4
