"""
Which pack holds which chunk.

A segment keeps its chunks as sorted records of 57 bytes in one block, and the ids' first bytes once
more in columns: a chunk costs 60 bytes of memory and no more, and a look-up is three bisections.
"""

from __future__ import annotations

import struct
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgpack

from kryonix_backup.crypto.seal import HEADER_BYTES, Header
from kryonix_backup.errors import Damaged
from kryonix_backup.model import CHUNK_ID_BYTES, ChunkId, PackId
from kryonix_backup.repository.codec import Codec
from kryonix_backup.repository.pack import Frame, PackInfo, Place

_RECORD = struct.Struct(">32sIIIIBII")  # id, pack, offset, sealed, raw, codec, start, length
RECORD_BYTES = _RECORD.size

_COLUMNS = 3

# A look-up asks every segment in turn (2 us each), so many small ones are merged in memory when
# they are loaded, at 1.5 us a record.
_MOST_SMALL = 8
_SMALL_RECORDS = 1 << 16


class Found(NamedTuple):
    """A chunk's place and the pack that it is in."""

    pack: PackInfo
    place: Place


class Segment:
    """An unchanging, sorted part of the index."""

    def __init__(self, packs: Sequence[PackInfo], records: bytes) -> None:
        self.packs = tuple(packs)
        self._records = records
        self.count = len(records) // RECORD_BYTES
        # The first bytes of all ids, the second ones, and so on: each narrows a look-up by 256.
        self._columns = [records[at::RECORD_BYTES] for at in range(_COLUMNS)]

    @classmethod
    def of(cls, packs: Iterable[tuple[PackInfo, Iterable[tuple[ChunkId, Place]]]]) -> Segment:
        """A segment of everything in these packs."""
        infos: list[PackInfo] = []
        records: list[bytes] = []
        for number, (info, chunks) in enumerate(packs):
            infos.append(info)
            for chunk, (frame, start, length) in chunks:
                records.append(_RECORD.pack(chunk, number, *frame, start, length))
        records.sort()
        return cls(infos, b"".join(records))

    def find_all(self, chunk: ChunkId) -> Iterator[Found]:
        """Every place of the chunk: merged segments bring its copies together."""
        return (self._at(at)[1] for at in self._search(chunk))

    @classmethod
    def merged(cls, segments: Sequence[Segment]) -> Segment:
        """One segment instead of several; what two of them say of one pack stands in it once."""
        packs = list({pack.id: pack for segment in segments for pack in segment.packs}.values())
        numbers = {pack.id: number for number, pack in enumerate(packs)}
        records: set[bytes] = set()
        for segment in segments:
            own = [numbers[pack.id].to_bytes(4) for pack in segment.packs]
            for at in range(0, len(segment._records), RECORD_BYTES):
                record = segment._records[at : at + RECORD_BYTES]
                records.add(record[:32] + own[int.from_bytes(record[32:36])] + record[36:])
        return cls(packs, b"".join(sorted(records)))

    def without(self, gone: Container[PackId]) -> Segment:
        """The segment but for what it says of these packs."""
        kept: dict[PackId, tuple[PackInfo, list[tuple[ChunkId, Place]]]] = {}
        for chunk, found in self:
            if found.pack.id not in gone:
                kept.setdefault(found.pack.id, (found.pack, []))[1].append((chunk, found.place))
        return Segment.of(kept.values())

    def __iter__(self) -> Iterator[tuple[ChunkId, Found]]:
        return (self._at(at) for at in range(self.count))

    def packs_of(self, chunk: ChunkId) -> list[PackInfo]:
        """The packs that the chunk is in; cheaper than `find_all`."""
        found = []
        for at in self._search(chunk):
            start = at * RECORD_BYTES + CHUNK_ID_BYTES
            found.append(self.packs[int.from_bytes(self._records[start : start + 4])])
        return found

    def _search(self, chunk: bytes) -> range:
        """The records of the chunk; they stand side by side."""
        low, high = 0, self.count
        for byte, column in zip(chunk, self._columns, strict=False):
            low = bisect_left(column, byte, low, high)
            high = bisect_right(column, byte, low, high)
            if high - low <= 1:
                break
        while low < high and not self._is_at(low, chunk):
            low += 1
        end = low
        while end < high and self._is_at(end, chunk):
            end += 1
        return range(low, end)

    def _is_at(self, at: int, chunk: bytes) -> bool:
        start = at * RECORD_BYTES
        return self._records[start : start + CHUNK_ID_BYTES] == chunk

    def _at(self, at: int) -> tuple[ChunkId, Found]:
        chunk, pack, offset, sealed, raw, codec, start, length = _RECORD.unpack_from(
            self._records, at * RECORD_BYTES
        )
        place = Place(Frame(offset, sealed, raw, Codec(codec)), start, length)
        return ChunkId(chunk), Found(self.packs[pack], place)

    def to_bytes(self) -> bytes:
        """The segment as it is sealed into an index object."""
        packs = [(bytes.fromhex(pack.id), pack.size, pack.header.to_bytes()) for pack in self.packs]
        packed: bytes = msgpack.packb({"packs": packs, "records": self._records})
        return packed

    @classmethod
    def from_bytes(cls, plain: bytes, name: str) -> Segment:
        """Raises Damaged, naming the index object."""
        try:
            stored = msgpack.unpackb(plain)
            packs = [
                PackInfo(PackId(pack.hex()), int(size), Header.from_bytes(header, name))
                for pack, size, header in stored["packs"]
                if len(header) == HEADER_BYTES
            ]
            records = stored["records"]
            if not isinstance(records, bytes) or len(records) % RECORD_BYTES:
                raise ValueError("records are cut short")
            if len(packs) != len(stored["packs"]):
                raise ValueError("a pack's header is cut short")
        except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
            raise Damaged(f"{name} has the wrong form") from error
        return cls(packs, records)


class Index:
    """Every segment of a repository; lookups see the newest first."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self.names: set[str] = set()
        """The index objects that are taken into account."""
        self.damaged: dict[str, str] = {}
        """Those that cannot be, and why."""
        self._lock = threading.Lock()

    def _merge_small(self) -> None:
        small = [segment for segment in self._segments if segment.count < _SMALL_RECORDS]
        if len(small) > _MOST_SMALL:
            large = [segment for segment in self._segments if segment.count >= _SMALL_RECORDS]
            self._segments = [*large, Segment.merged(small)]

    def add(self, segments: Mapping[str, Segment]) -> None:
        """Take more segments into account, by the names of their index objects."""
        with self._lock:
            # A look-up in another thread keeps the list that it began with.
            self._segments = [*self._segments, *segments.values()]
            self._merge_small()
            self.names.update(segments)

    def find(self, chunk: ChunkId) -> Found | None:
        """Where the chunk is, or None where no segment names it."""
        return next(self.find_all(chunk), None)

    def find_all(self, chunk: ChunkId) -> Iterator[Found]:
        """Every place where the chunk is: two writers at once may have stored it twice."""
        for segment in reversed(self._segments):
            yield from segment.find_all(chunk)

    def is_in(self, chunk: ChunkId, packs: Container[PackId]) -> bool:
        """Whether one of these packs holds the chunk."""
        for segment in reversed(self._segments):
            for pack in segment.packs_of(chunk):
                if pack.id in packs:
                    return True
        return False

    def packs(self) -> dict[PackId, PackInfo]:
        """Every pack that a segment names."""
        return {pack.id: pack for segment in self._segments for pack in segment.packs}

    def __iter__(self) -> Iterator[tuple[ChunkId, Found]]:
        for segment in self._segments:
            yield from segment

    def __len__(self) -> int:
        return sum(segment.count for segment in self._segments)
