"""
The list of an entry's chunks.

Each is a 32-byte id and a 32-bit length. A long list is itself kept as chunks, cut where an id says
so, and the entry then names those: appending to a large file touches the end of its list only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kryonix_backup.errors import Damaged
from kryonix_backup.model import CHUNK_ID_BYTES, Blob, ChunkId, Entry

_REF = struct.Struct(">32sI")
REF_BYTES = _REF.size
_DIRECT_REFS = 64
_LIST_REFS = 1024  # on average, in one chunk of a long list
_MOST_LIST_REFS = 8192


class Ref(NamedTuple):
    """A chunk and its length in bytes."""

    chunk: ChunkId
    length: int


class RefList:
    """Collects the chunks of one entry; ``keep`` stores one chunk of a long list."""

    def __init__(self, keep: Callable[[bytes], ChunkId]) -> None:
        self._keep = keep
        self._refs: list[bytes] = []
        self._lists: list[bytes] = []
        self.size = 0

    def add(self, chunk: ChunkId, length: int) -> None:
        """Take the next chunk."""
        self._refs.append(_REF.pack(chunk, length))
        self.size += length
        if len(self._refs) >= _MOST_LIST_REFS or (
            len(self._refs) > _DIRECT_REFS and int.from_bytes(chunk[-4:]) % _LIST_REFS == 0
        ):
            self._keep_list()

    def close(self) -> tuple[bytes, bool]:
        """What goes into the entry: its refs, and whether they are indirect."""
        if not self._lists and len(self._refs) <= _DIRECT_REFS:
            return b"".join(self._refs), False
        if self._refs:
            self._keep_list()
        return b"".join(self._lists), True

    def _keep_list(self) -> None:
        body = b"".join(self._refs)
        self._lists.append(_REF.pack(self._keep(body), len(body)))
        self._refs = []


def refs_of(entry: Entry, read: Callable[[ChunkId], Blob]) -> Iterator[Ref]:
    """The chunks of an entry's content, in order; raises Damaged."""
    for ref in _unpack(entry.refs, entry):
        if not entry.indirect:
            yield ref
            continue
        yield from _unpack(read(ref.chunk), entry)


def named_chunks(entry: Entry) -> list[ChunkId]:
    """The chunks that an entry itself names: its content, or the lists of a long one."""
    refs = entry.refs
    return [
        ChunkId(refs[start : start + CHUNK_ID_BYTES]) for start in range(0, len(refs), REF_BYTES)
    ]


def list_chunks(entry: Entry) -> Iterator[Ref]:
    """The chunks that hold a long list itself; none for a short one."""
    return _unpack(entry.refs, entry) if entry.indirect else iter(())


def _unpack(packed: Blob, entry: Entry) -> Iterator[Ref]:
    if len(packed) % REF_BYTES:
        raise Damaged(f"the list of chunks of {entry.text!r} is cut short")
    return (Ref(ChunkId(chunk), length) for chunk, length in _REF.iter_unpack(packed))
