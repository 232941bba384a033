"""Messages of pgoutput as the server writes them, for changes that stand for many others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from struct import Struct

from kryonix_backup.errors import Damaged
from kryonix_backup.sources.postgres.pgoutput import EPOCH, UNCHANGED, Relation, Row

_BEGIN = Struct(">cQqI").pack
_COMMIT = Struct(">cBQQq").pack
_U16, _U32 = Struct(">H").pack, Struct(">I").pack
_TRUNCATE = Struct(">cIB").pack
_NULL, _TEXT, _SAME = b"n", b"t", b"u"
_MICROSECOND = timedelta(microseconds=1)


def framed(message: bytes) -> bytes:
    """A message with its length in front, as a segment holds it."""
    return _U32(len(message)) + message


def begin(lsn: int, time: datetime) -> bytes:
    """A transaction begins, of no number that a server gave."""
    return _BEGIN(b"B", lsn, (time - EPOCH) // _MICROSECOND, 0)


def commit(lsn: int, end: int, time: datetime) -> bytes:
    """It ends, and what comes next in the log is at ``end``."""
    return _COMMIT(b"C", 0, lsn, end, (time - EPOCH) // _MICROSECOND)


def insert(oid: int, row: Row) -> bytes:
    """A row came."""
    return b"I" + _U32(oid) + b"N" + _row(row)


def update(oid: int, row: Row) -> bytes:
    """A row changed, but not its key."""
    return b"U" + _U32(oid) + b"N" + _row(row)


def delete(relation: Relation, old: Row) -> bytes:
    """A row went; ``old`` is its identity, or the whole of it."""
    kind = b"O" if relation.identity == "f" else b"K"
    return b"D" + _U32(relation.oid) + kind + _row(old)


def truncate(oids: Sequence[int]) -> bytes:
    """These tables were emptied, together."""
    return _TRUNCATE(b"T", len(oids), 0) + b"".join(_U32(oid) for oid in oids)


def identity(relation: Relation, key: Iterable[bytes | None]) -> Row:
    """The row of which only the key is told."""
    row: list[bytes | None] = [None] * len(relation.columns)
    for place, value in zip(relation.keys, key, strict=True):
        row[place] = value
    return tuple(row)


def _row(row: Row) -> bytes:
    parts = [_U16(len(row))]
    for value in row:
        if value is None:
            parts.append(_NULL)
        elif value is UNCHANGED:
            parts.append(_SAME)
        elif isinstance(value, bytes):
            parts += (_TEXT, _U32(len(value)), value)
        else:
            raise Damaged(f"a value of a row is a {type(value).__name__}")
    return b"".join(parts)
