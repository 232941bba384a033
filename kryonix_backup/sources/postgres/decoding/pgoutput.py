"""
The messages of pgoutput (protocol 1, values as text), decoded.

Source: PostgreSQL's documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from struct import Struct
from typing import Final, NamedTuple, TypeVar

from kryonix_backup.errors import Damaged
from kryonix_backup.model import Blob

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
_LENGTH = Struct(">I").unpack_from
_PACKED = Struct(">I").pack
_COUNT = Struct(">H").pack
_U16 = Struct(">H").unpack_from
_U32 = Struct(">I").unpack_from
_BEGIN = Struct(">xQqI").unpack
_NULL, _TEXT, _SAME = ord("n"), ord("t"), ord("u")
_NEW, _OLD = ord("N"), frozenset(b"KO")
_IDENTITIES = frozenset("difn")


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
    """
    A transaction begins: where its commit is in the log, and when it was committed.

    ``micros`` are microseconds since 2000, as `micros_of` gives them.
    """

    lsn: int
    micros: int

    @property
    def time(self) -> datetime:
        """When it was committed."""
        return EPOCH + self.micros * _MICROSECOND


class Change(NamedTuple):
    """``old`` is the identity of the row before, or all of it; None where it did not change."""

    oid: int
    old: Row | None
    new: Row | None


def frames(pieces: Iterable[Blob]) -> Iterator[bytes]:
    """The messages of a segment's body, none of them empty; raises Damaged where it is cut."""
    rest, needed = bytearray(), 0
    for piece in pieces:
        rest += piece
        if len(rest) < needed:
            continue  # a row of many pieces is copied once
        body, rest, needed = bytes(rest), bytearray(), 0
        at, size = 0, len(body)
        while at + 4 <= size:
            length = _LENGTH(body, at)[0]
            end = at + 4 + length
            if end > size:
                needed = end - at
                break
            if not length:
                raise Damaged("a segment of the transaction log holds an empty message")
            yield body[at + 4 : end]
            at = end
        rest += memoryview(body)[at:]
    if rest:
        raise Damaged("a segment of the transaction log is cut short")


_Decoded = TypeVar("_Decoded")


def _decoder(decode: Callable[[bytes], _Decoded]) -> Callable[[bytes], _Decoded]:
    """Whatever the bytes are, it gives the message or raises Damaged."""

    @wraps(decode)
    def decoded(message: bytes) -> _Decoded:
        try:
            return decode(message)
        except (struct.error, IndexError, ValueError, OverflowError) as error:
            kind = ascii(chr(message[0])) if message else "nothing"
            raise Damaged(
                f"a message {kind} of {len(message)} bytes in the transaction log has the wrong"
                " form"
            ) from error

    return decoded


@_decoder
def begin(message: bytes) -> Begin:
    """A message B."""
    lsn, micros, _ = _BEGIN(message)
    if not _FIRST <= micros <= _LAST:
        raise ValueError(micros)
    return Begin(lsn, micros)


def micros_of(moment: datetime) -> int:
    """A time as messages hold it."""
    return (moment - EPOCH) // _MICROSECOND


@_decoder
def relation(message: bytes) -> Relation:
    """A message R."""
    oid = _U32(message, 1)[0]
    schema, at = _string(message, 5)
    name, at = _string(message, at)
    identity = chr(message[at])
    if identity not in _IDENTITIES:
        raise ValueError(identity)
    count = _U16(message, at + 1)[0]
    at += 3
    columns, keys = [], []
    for place in range(count):
        if message[at] & 1:
            keys.append(place)
        column, at = _string(message, at + 1)
        columns.append(column)
        at += 8  # type and modifier
    _at_end(message, at)
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns), tuple(keys))


@_decoder
def insert(message: bytes) -> Change:
    """A message I."""
    return Change(_U32(message, 1)[0], None, _new(message, 5))


@_decoder
def update(message: bytes) -> Change:
    """A message U."""
    oid = _U32(message, 1)[0]
    if message[5] == _NEW:  # the identity did not change
        return Change(oid, None, _new(message, 5))
    old, at = _old(message)
    return Change(oid, old, _new(message, at))


@_decoder
def delete(message: bytes) -> Change:
    """A message D."""
    old, at = _old(message)
    _at_end(message, at)
    return Change(_U32(message, 1)[0], old, None)


@_decoder
def truncated(message: bytes) -> list[int]:
    """The oids of a message T."""
    count = _U32(message, 1)[0]
    _at_end(message, 6 + 4 * count)
    return [oid for (oid,) in struct.iter_unpack(">I", message[6:])]


@_decoder
def logical(message: bytes) -> tuple[str, bytes]:
    """Prefix and content of a message M."""
    end = message.index(0, 10)
    at = end + 5
    _at_end(message, at + _U32(message, end + 1)[0])
    # That of somebody else may be anything; only ours matters, which is plain.
    return message[10:end].decode(errors="replace"), message[at:]


@_decoder
def row(part: bytes) -> Row:
    """The values of a row, out of the part of a message that holds it."""
    values, end = _row(part, 0)
    _at_end(part, end)
    return values


def is_whole(part: bytes) -> bool:
    """Whether a row's values are all written out; not where it has the wrong form."""
    at, size = 2, len(part)
    try:
        while at < size:
            kind = part[at]
            if kind == _TEXT:
                at += 5 + _U32(part, at + 1)[0]
            elif kind == _NULL:
                at += 1
            else:
                return False
    except struct.error:
        return False
    return at == size


def encoded(value: Value) -> bytes:
    """A value as it stands in a row."""
    if value is None:
        return b"n"
    return b"t" + _PACKED(len(value)) + value if isinstance(value, bytes) else b"u"


def encoded_row(values: Sequence[Value]) -> bytes:
    """Values as the row that `row` reads."""
    return _COUNT(len(values)) + b"".join(map(encoded, values))


def _new(message: bytes, at: int) -> Row:
    """The row after a change, with which a message ends."""
    if message[at] != _NEW:
        raise ValueError(message[at])
    row, end = _row(message, at + 1)
    _at_end(message, end)
    return row


def _old(message: bytes) -> tuple[Row, int]:
    """The row before a change, or its identity, which is always written out."""
    if message[5] not in _OLD:
        raise ValueError(message[5])
    row, at = _row(message, 6)
    if UNCHANGED in row:
        raise ValueError(row)
    return row, at


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


def _at_end(message: bytes, at: int) -> None:
    """A value that was cut short would not be noticed otherwise."""
    if at != len(message):
        raise ValueError(at)


def _string(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode(), end + 1
