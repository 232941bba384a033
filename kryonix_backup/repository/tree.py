"""
The entries of one part of a source, sorted, in a tree of chunks.

A leaf holds consecutive entries; a node holds, for consecutive leaves or nodes, the first path, the
chunk and what is in it. Where a leaf or node ends is decided by its entries' own names, so a change
touches one leaf and the nodes above it, and every other part of the tree is a chunk that is there
already (a "prolly tree", as in Noms and Dolt). Reading is by stream: memory never grows with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import msgpack

from kryonix_backup.errors import Damaged, SourceError
from kryonix_backup.model import CHUNK_ID_BYTES, Blob, ChunkId, Entry, EntryKind, sort_key

_AVERAGE_ENTRIES = 256  # a power of two; about 25 KiB of a file tree's entries
_MOST_ENTRIES = 4096
_MOST_BYTES = 1 << 20
_MOST_LEVELS = 12
_MOST_SIZE = (1 << 64) - 1  # what msgpack can say; three sparse files of 8 EiB are more


class Branch(NamedTuple):
    """One child of a node: its first path, its chunk, and how much is below it (no more is said
    than ``_MOST_SIZE`` bytes)."""

    first: bytes
    chunk: ChunkId
    entries: int
    bytes: int


class Root(NamedTuple):
    """Where a tree begins: a chunk, and how many levels of nodes are above the leaves."""

    chunk: ChunkId
    levels: int

    def to_plain(self) -> list[Any]:
        """The root as JSON can say it."""
        return [self.chunk.hex(), self.levels]

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> Root:
        """Raises Damaged."""
        try:
            chunk, levels = bytes.fromhex(plain[0]), int(plain[1])
        except (ValueError, TypeError, IndexError) as error:
            raise Damaged("a snapshot names the root of a tree in the wrong form") from error
        if len(chunk) != CHUNK_ID_BYTES or not 0 <= levels <= _MOST_LEVELS:
            raise Damaged("a snapshot names the root of a tree in the wrong form")
        return cls(ChunkId(chunk), levels)


class _Level:
    """What is collected for the next leaf or node of one level."""

    def __init__(self) -> None:
        self.rows: list[bytes] = []
        self.first = b""
        self.entries = 0
        self.bytes = 0
        self.size = 0


class TreeWriter:
    """Takes entries in order and keeps their tree; ``keep`` stores one chunk and names it."""

    def __init__(self, keep: Callable[[bytes], ChunkId], seed: int) -> None:
        self._keep = keep
        self._seed = seed
        self._levels = [_Level()]
        self._last: bytes | None = None
        self._pack = msgpack.Packer(use_bin_type=True).pack

    def add(self, entry: Entry) -> None:
        """Take the next entry; raises SourceError when it is not after the last one."""
        key = sort_key(entry.path)
        if self._last is not None and key <= self._last:
            raise SourceError(f"{entry.text!r} comes twice, or out of order")
        self._last = key
        row = self._pack(entry)
        self._add_row(0, row, entry.path, 1, entry.size)

    def close(self) -> Root:
        """Keep what is left, and name the root."""
        level = 0
        while True:
            rows = self._levels[level].rows
            top = level == len(self._levels) - 1
            if top and level and len(rows) == 1:
                branch = _branch(msgpack.unpackb(rows[0]))
                return Root(branch.chunk, level - 1)
            if rows or top:
                self._close_level(level)
            level += 1

    def _add_row(self, level: int, row: bytes, first: bytes, entries: int, size: int) -> None:
        if level == len(self._levels):
            self._levels.append(_Level())
        at = self._levels[level]
        if not at.rows:
            at.first = first
        at.rows.append(row)
        at.entries += entries
        at.bytes = min(at.bytes + size, _MOST_SIZE)
        at.size += len(row)
        ends = crc32(first, self._seed + level) % _AVERAGE_ENTRIES == 0
        if ends or len(at.rows) >= _MOST_ENTRIES or at.size >= _MOST_BYTES:
            self._close_level(level)

    def _close_level(self, level: int) -> None:
        at = self._levels[level]
        chunk = self._keep(_array_header(len(at.rows)) + b"".join(at.rows))
        self._levels[level] = _Level()
        row = self._pack((at.first, chunk, at.entries, at.bytes))
        self._add_row(level + 1, row, at.first, at.entries, at.bytes)


def _array_header(count: int) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(count)
    return header


class TreeReader:
    """Reads a tree; ``read`` gives the content of a chunk, checked, and raises Damaged."""

    def __init__(self, root: Root, read: Callable[[ChunkId], Blob]) -> None:
        self._root = root
        self._read = read

    def entries(self, start: bytes = b"") -> Iterator[Entry]:
        """Every entry in order, from the one at ``start`` (or the next after it) on."""
        key = sort_key(start)
        for leaf in self._leaves(self._root.chunk, self._root.levels, key):
            for entry in self.leaf(leaf):
                if not key or sort_key(entry.path) >= key:
                    yield entry

    def below(self, path: bytes) -> Iterator[Entry]:
        """The entry at a path and everything below it."""
        for entry in self.entries(path):
            if entry.path != path and path and not entry.path.startswith(path + b"/"):
                return
            yield entry

    def leaves(self) -> Iterator[ChunkId]:
        """The chunks of every leaf, in order."""
        return self._leaves(self._root.chunk, self._root.levels, b"")

    def chunks(self) -> Iterator[ChunkId]:
        """The chunks of every node and leaf of the tree."""
        return self._chunks(self._root.chunk, self._root.levels)

    def leaf(self, chunk: ChunkId) -> list[Entry]:
        """The entries of one leaf."""
        return [_entry(row, chunk) for row in _rows(self._read(chunk), chunk)]

    def totals(self) -> tuple[int, int]:
        """How many entries there are, and the sum of their sizes in bytes (2^64 - 1 at most)."""
        if self._root.levels == 0:
            entries = self.leaf(self._root.chunk)
            return len(entries), min(sum(entry.size for entry in entries), _MOST_SIZE)
        top = [_branch(row) for row in _rows(self._read(self._root.chunk), self._root.chunk)]
        size = min(sum(branch.bytes for branch in top), _MOST_SIZE)
        return sum(branch.entries for branch in top), size

    def _leaves(self, chunk: ChunkId, levels: int, key: bytes) -> Iterator[ChunkId]:
        if levels == 0:
            yield chunk
            return
        branches = [_branch(row) for row in _rows(self._read(chunk), chunk)]
        for number, branch in enumerate(branches):
            after = branches[number + 1] if number + 1 < len(branches) else None
            if key and after is not None and sort_key(after.first) <= key:
                continue
            yield from self._leaves(branch.chunk, levels - 1, key)

    def _chunks(self, chunk: ChunkId, levels: int) -> Iterator[ChunkId]:
        yield chunk
        if levels:
            for row in _rows(self._read(chunk), chunk):
                yield from self._chunks(_branch(row).chunk, levels - 1)


def _rows(raw: Blob, chunk: ChunkId) -> list[Any]:
    try:
        rows = msgpack.unpackb(raw, raw=False, use_list=True, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise Damaged(f"chunk {chunk.hex()} is not a part of a tree") from error
    if not isinstance(rows, list):
        raise Damaged(f"chunk {chunk.hex()} is not a part of a tree")
    return rows


def _branch(row: Any) -> Branch:
    try:
        branch = Branch(*row)
    except TypeError as error:
        raise Damaged("a node of a tree has the wrong form") from error
    if (
        tuple(map(type, branch)) != (bytes, bytes, int, int)
        or len(branch.chunk) != CHUNK_ID_BYTES
        or min(branch.entries, branch.bytes) < 0
    ):
        raise Damaged("a node of a tree has the wrong form")
    return branch


_KINDS = {kind.value: kind for kind in EntryKind}


def _entry(row: Any, chunk: ChunkId) -> Entry:
    try:
        path, kind, size, refs, indirect, stamp, meta = row
        entry = Entry(path, _KINDS[kind], size, refs, indirect, stamp, meta)
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"an entry in chunk {chunk.hex()} has the wrong form") from error
    if (
        type(path) is not bytes
        or type(size) is not int
        or size < 0
        or type(refs) is not bytes
        or type(indirect) is not bool
        or type(meta) is not dict
    ):
        raise Damaged(f"an entry in chunk {chunk.hex()} has the wrong form")
    return entry
