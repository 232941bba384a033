"""
The messages of pgoutput (protocol 1, values as text), decoded.

Source: PostgreSQL's documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Final, NamedTuple

from kryonix_backup.errors import Damaged
from kryonix_backup.model import Blob

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_LENGTH = Struct(">I").unpack_from
_U16 = Struct(">H").unpack_from
_U32 = Struct(">I").unpack_from
_BEGIN = Struct(">xQqI").unpack_from
_NULL, _TEXT, _SAME = ord("n"), ord("t"), ord("u")


class Unchanged:
    """Stands for a long value that an update did not touch, and that is not in the log."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()
Value = bytes | None | Unchanged
Row = tuple[Value, ...]


class Relation(NamedTuple):
    """
    A table as it was when its next changes were made.

    ``keys`` are the places of the columns of its replica identity. ``identity`` is d (primary key),
    i (an index), f (the whole row) or n (nothing).
    """

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[str, ...]
    keys: tuple[int, ...]

    @property
    def shown(self) -> str:
        """The table's name for messages."""
        return f"{self.schema}.{self.name}"


class Begin(NamedTuple):
    """A transaction begins: where its commit is in the log, and when it was committed."""

    lsn: int
    time: datetime


class Change(NamedTuple):
    """``old`` is the identity of the row before, or all of it; None where it did not change."""

    oid: int
    old: Row | None
    new: Row | None


def frames(pieces: Iterable[Blob]) -> Iterator[bytes]:
    """The messages of a segment's body; raises Damaged where it is cut short."""
    rest = b""
    for piece in pieces:
        body = rest + bytes(piece) if rest else bytes(piece)
        at, size = 0, len(body)
        while at + 4 <= size:
            end = at + 4 + _LENGTH(body, at)[0]
            if end > size:
                break
            yield body[at + 4 : end]
            at = end
        rest = body[at:]
    if rest:
        raise Damaged("a segment of the transaction log is cut short")


def begin(message: bytes) -> Begin:
    """A message B."""
    lsn, micros, _ = _BEGIN(message)
    return Begin(lsn, EPOCH + timedelta(microseconds=micros))


def relation(message: bytes) -> Relation:
    """A message R."""
    oid = _U32(message, 1)[0]
    schema, at = _string(message, 5)
    name, at = _string(message, at)
    identity = chr(message[at])
    count = _U16(message, at + 1)[0]
    at += 3
    columns, keys = [], []
    for place in range(count):
        if message[at] & 1:
            keys.append(place)
        column, at = _string(message, at + 1)
        columns.append(column)
        at += 8  # type and modifier
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns), tuple(keys))


def insert(message: bytes) -> Change:
    """A message I."""
    return Change(_U32(message, 1)[0], None, _row(message, 6)[0])


def update(message: bytes) -> Change:
    """A message U."""
    oid = _U32(message, 1)[0]
    if message[5] == 0x4E:  # N: the identity did not change
        return Change(oid, None, _row(message, 6)[0])
    old, at = _row(message, 6)
    return Change(oid, old, _row(message, at + 1)[0])


def delete(message: bytes) -> Change:
    """A message D."""
    return Change(_U32(message, 1)[0], _row(message, 6)[0], None)


def truncated(message: bytes) -> list[int]:
    """The oids of a message T."""
    count = _U32(message, 1)[0]
    return [_U32(message, 6 + 4 * place)[0] for place in range(count)]


def logical(message: bytes) -> tuple[str, bytes]:
    """Prefix and content of a message M."""
    prefix, at = _string(message, 10)
    length = _U32(message, at)[0]
    return prefix, message[at + 4 : at + 4 + length]


def _row(message: bytes, at: int) -> tuple[Row, int]:
    count = _U16(message, at)[0]
    at += 2
    values: list[Value] = []
    for _ in range(count):
        kind = message[at]
        if kind == _TEXT:
            end = at + 5 + _U32(message, at + 1)[0]
            values.append(message[at + 5 : end])
            at = end
        elif kind == _NULL:
            values.append(None)
            at += 1
        elif kind == _SAME:
            values.append(UNCHANGED)
            at += 1
        else:
            raise Damaged(f"a row in the transaction log has a value of the unknown kind {kind}")
    return tuple(values), at


def _string(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode(), end + 1
