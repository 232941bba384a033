"""A database whose log is followed, and what is in the segments of it, decoded for tests alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from psycopg import Connection

from kryonix_backup.model import ChainId, LogHeader
from kryonix_backup.sources.postgres.following.stream import PostgresLog
from kryonix_backup.sources.postgres.preparation.preparing import Prepared, prepare, renew_slot
from kryonix_backup.sources.postgres.server.address import Address, slot_name
from kryonix_backup.sources.source import LogPiece
from kryonix_backup.testing.postgres import PostgresServer

_SENT = """
select data from pg_logical_slot_get_binary_changes(%s, null, null, 'proto_version', '1',
    'publication_names', 'p', 'messages', 'true')
"""


@dataclass
class Followed:
    """A database, its log, and the segment that was kept last."""

    server: PostgresServer
    database: str
    most_bytes: int = 1 << 24
    kept: list[tuple[LogHeader, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.address = Address.parse(self.server.url(self.database))
        self.slot = slot_name(self.database)
        self.log = PostgresLog(self.address, most_bytes=self.most_bytes)
        self.run("create table t (a int primary key, b text)")
        self.opening = self.last = self._opened(prepare(self.address, replica_identity_full=True))

    def _opened(self, prepared: Prepared) -> LogHeader:
        return self.log.new_chain(prepared)._replace(chain=ChainId("chain"))

    def anew(self) -> None:
        """Begin another chain."""
        self.opening = self.last = self._opened(renew_slot(self.address))

    def run(self, *statements: str) -> list[Any]:
        """Run statements, each a transaction; the rows of the last."""
        with self.server.connect(self.database) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def drain(self, *, confirm: bool = True) -> list[LogPiece]:
        """Everything that was committed by now, kept; its pieces."""
        with self.log.follow(self.opening, self.last) as stream:
            pieces = []
            for piece in stream.pieces(lambda: True, 60.0):
                pieces.append(piece)
                if piece.header is not None:
                    self.last = piece.header
                    if confirm:
                        stream.confirm(piece.header.end)
        self.kept.extend(segments(pieces))
        return pieces

    def rows(self) -> list[str]:
        """What happened to ``t`` in all that was kept, each segment read alone."""
        return [each for _, body in self.kept for each in changes(body)]


def segments(pieces: list[LogPiece]) -> Iterator[tuple[LogHeader, bytes]]:
    """The segments that the pieces make."""
    body = b""
    for piece in pieces:
        body += piece.body
        if piece.header is not None:
            yield piece.header, body
            body = b""
    assert not body


def sent(connection: Connection[tuple[object, ...]], slot: str) -> list[bytes]:
    """What the server sends by a slot of its database, which is dropped."""
    try:
        rows = connection.execute(_SENT, (slot,)).fetchall()
    finally:
        connection.execute("select pg_drop_replication_slot(%s)", (slot,))
    return [message for (message,) in cast("list[tuple[bytes]]", rows)]


def frames(body: bytes) -> Iterator[bytes]:
    """The messages of a segment."""
    at = 0
    while at < len(body):
        (length,) = struct.unpack_from(">I", body, at)
        yield body[at + 4 : at + 4 + length]
        at += 4 + length


def changes(body: bytes) -> Iterator[str]:
    """The rows of a segment, as ``I t 1,x``; needs nothing but the segment."""
    tables: dict[int, str] = {}
    open_ = False
    for frame in frames(body):
        kind = frame[:1]
        if kind in b"BC":
            assert open_ == (kind == b"C")
            open_ = kind == b"B"
            continue
        assert open_ != (kind == b"L")  # samples of large objects are in no transaction
        if kind == b"R":
            schema, name = frame[5:].split(b"\0", 2)[:2]
            if schema != b"kryonix":
                tables[int.from_bytes(frame[1:5])] = name.decode()
        elif kind in b"IUD":
            table = tables.get(int.from_bytes(frame[1:5]))
            if table is None:
                continue
            yield f"{kind.decode()} {table} {','.join(_values(frame, 6))}"
        elif kind == b"T":
            yield f"T {tables[int.from_bytes(frame[6:10])]}"


def _values(frame: bytes, at: int) -> Iterator[str]:
    (count,) = struct.unpack_from(">H", frame, at)
    at += 2
    for _ in range(count):
        kind = frame[at : at + 1]
        at += 1
        if kind == b"t":
            (length,) = struct.unpack_from(">I", frame, at)
            yield frame[at + 4 : at + 4 + length].decode()
            at += 4 + length
        else:
            yield {b"n": "null", b"u": "unchanged"}[kind]
