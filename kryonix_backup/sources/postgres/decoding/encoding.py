"""Messages of pgoutput as the server writes them, for changes that stand for many others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from struct import Struct

from kryonix_backup.sources.postgres.decoding.pgoutput import (
    Relation,
    Row,
    Value,
    encoded_row,
    micros_of,
)

_BEGIN = Struct(">cQqI").pack
_COMMIT = Struct(">cBQQq").pack
_U32 = Struct(">I").pack
_TRUNCATE = Struct(">cIB").pack


def framed(message: bytes) -> bytes:
    """A message with its length in front, as a segment holds it."""
    return _U32(len(message)) + message


def begin(lsn: int, time: datetime) -> bytes:
    """A transaction begins, of no number that a server gave."""
    return _BEGIN(b"B", lsn, micros_of(time), 0)


def commit(lsn: int, end: int, time: datetime) -> bytes:
    """It ends, and what comes next in the log is at ``end``."""
    return _COMMIT(b"C", 0, lsn, end, micros_of(time))


def came(oid: int) -> bytes:
    """What stands before a row that came."""
    return b"I" + _U32(oid) + b"N"


def changed(oid: int) -> bytes:
    """What stands before a row that changed, but not its key."""
    return b"U" + _U32(oid) + b"N"


def gone(oid: int, *, whole: bool) -> bytes:
    """What stands before a row that went, as a whole or its identity alone."""
    return b"D" + _U32(oid) + (b"O" if whole else b"K")


def insert(oid: int, row: Row) -> bytes:
    """A row came."""
    return came(oid) + encoded_row(row)


def update(oid: int, row: Row) -> bytes:
    """A row changed, but not its key."""
    return changed(oid) + encoded_row(row)


def delete(relation: Relation, old: Row) -> bytes:
    """A row went; ``old`` is its identity, or the whole of it."""
    return gone(relation.oid, whole=relation.identity == "f") + encoded_row(old)


def truncate(oids: Sequence[int]) -> bytes:
    """These tables were emptied, together."""
    return _TRUNCATE(b"T", len(oids), 0) + b"".join(_U32(oid) for oid in oids)


def identity(relation: Relation, key: Iterable[Value]) -> Row:
    """The row of which only the key is told."""
    row: list[Value] = [None] * len(relation.columns)
    for place, value in zip(relation.keys, key, strict=True):
        row[place] = value
    return tuple(row)
