"""
Every move of a commit, written and made durable before the first of them is made.

The journal has its name once it is whole: where there is one, a commit was begun and can be
carried on or walked backwards. Rows are framed by their length on both sides.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgpack

from kryonix_backup.errors import RestoreError
from kryonix_backup.sources.files.folders import Handle
from kryonix_backup.sources.files.staging import read_from, write_to

JOURNAL = b"journal"
_UNFINISHED = b"journal.new"
_LENGTH = struct.Struct("<I")


class Begin(NamedTuple):
    """The first row: which directories were made for the target, the last first."""

    made: list[bytes]


class Merge(NamedTuple):
    """A directory that is there already and takes in entries; ``after`` is None to leave it be."""

    path: bytes
    before: dict[str, Any]
    after: dict[str, Any] | None


class Close(NamedTuple):
    """A loaded directory whose own owner may not enter or change it, once it is in place."""

    path: bytes
    mode: int


class Move(NamedTuple):
    """A loaded entry, by its inode, that goes into place; ``over`` what is there already."""

    path: bytes
    inode: int
    over: bool


Row = Begin | Merge | Close | Move
_KINDS: tuple[type[Begin] | type[Merge] | type[Close] | type[Move], ...]
_KINDS = (Begin, Merge, Close, Move)


def write_journal(place: Handle, rows: Iterable[Row]) -> None:
    """Make the rows durable, then give the journal its name. Raises OSError."""
    with write_to(place, _UNFINISHED) as file:
        for row in rows:
            packed = msgpack.packb([_KINDS.index(type(row)), *row])
            length = _LENGTH.pack(len(packed))
            file.write(length + packed + length)
        file.flush()
        os.fsync(file.fileno())
    os.rename(_UNFINISHED, JOURNAL, src_dir_fd=place.fd, dst_dir_fd=place.fd)
    os.fsync(place.fd)


def read_journal(place: Handle, *, backwards: bool = False) -> Iterator[Row]:
    """The rows in order, or from the last to the first. Raises OSError, RestoreError."""
    with (
        read_from(place, JOURNAL) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        at = len(data) if backwards else 0
        while at > 0 if backwards else at < len(data):
            length_at = at - _LENGTH.size if backwards else at
            (length,) = _LENGTH.unpack_from(data, length_at)
            start = length_at - length if backwards else length_at + _LENGTH.size
            if start < 0 or start + length > len(data):
                raise RestoreError("the journal of this restore is not what was written")
            yield _row(data[start : start + length])
            at = start - _LENGTH.size if backwards else start + length + _LENGTH.size


def _row(packed: bytes) -> Row:
    kind, *members = msgpack.unpackb(packed, strict_map_key=False)
    made: Row = _KINDS[kind](*members)
    return made
