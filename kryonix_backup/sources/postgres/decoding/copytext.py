"""Rows as COPY's text, in blocks that are sent as they are."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from kryonix_backup.errors import Damaged
from kryonix_backup.model import KIB
from kryonix_backup.sources.postgres.decoding import pgoutput
from kryonix_backup.sources.postgres.decoding.pgoutput import Value

_BLOCK_BYTES = 256 * KIB
_NULL = b"\\N"
_LENGTH = struct.Struct(">I").unpack_from
_TEXT, _MISSING = ord("t"), ord("n")


def value_blocks(rows: Iterable[Sequence[Value]]) -> list[bytes]:
    """Rows whose values are at hand, all of them."""
    return row_blocks(pgoutput.encoded_row(row) for row in rows)


def row_blocks(rows: Iterable[bytes]) -> list[bytes]:
    """Rows as messages hold them; raises Damaged for one that has not all of its values."""
    done: list[bytes] = []
    held: list[bytes] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row)
        if size >= _BLOCK_BYTES:
            done.append(_block(held))
            held, size = [], 0
    if held:
        done.append(_block(held))
    return done


def _block(rows: list[bytes]) -> bytes:
    try:
        lines, tabs, nulls = _lines(rows)
    except (struct.error, IndexError, ValueError):
        return _escaped_block(rows)  # which says what is wrong
    block = b"\n".join(lines)
    if (
        block.count(b"\t") == tabs
        and block.count(b"\\") == nulls
        and block.count(b"\n") == len(lines) - 1
        and b"\r" not in block
    ):
        return block + b"\n"  # nothing in it has to be escaped
    return _escaped_block(rows)


def _lines(rows: list[bytes]) -> tuple[list[bytes], int, int]:
    """The lines as they are where nothing has to be escaped, and how many tabs and nulls."""
    lines = []
    tabs = nulls = 0
    for row in rows:
        values = []
        at, size = 2, len(row)
        while at < size:
            if row[at] == _TEXT:
                start = at + 5
                at = start + _LENGTH(row, at + 1)[0]
                values.append(row[start:at])
            elif row[at] == _MISSING:
                values.append(_NULL)
                nulls += 1
                at += 1
            else:
                raise ValueError
        if at != size or len(values) != row[0] * 256 + row[1]:
            raise ValueError
        lines.append(b"\t".join(values))
        tabs += max(0, len(values) - 1)
    return lines, tabs, nulls


def _escaped_block(rows: list[bytes]) -> bytes:
    values = [pgoutput.row(row) for row in rows]
    return b"".join(b"\t".join([_escaped(value) for value in row]) + b"\n" for row in values)


def _escaped(value: Value) -> bytes:
    if value is None:
        return _NULL
    if not isinstance(value, bytes):
        raise Damaged("a row in the transaction log lacks a value that has to be there")
    value = value.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return value.replace(b"\t", b"\\t").replace(b"\r", b"\\r")
