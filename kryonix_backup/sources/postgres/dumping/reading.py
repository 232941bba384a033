"""Readers of a dump: rows of a table, a program's output, a large object, a few bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import errors as pg
from psycopg import sql

from kryonix_backup.errors import KryonixError, SourceError, SourceUnavailable
from kryonix_backup.model import MIB, Blob, Entry
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection, conninfo, told
from kryonix_backup.sources.process import Program

_INHERITED = ("HOME", "PGPASSFILE", "PGPASSWORD", "PGSYSCONFDIR")
_PIECE_BYTES = MIB
# A table that is locked for longer fails the backup. For ever would be wrong: who waits for a table
# that our own connection has read makes a program of ours wait behind it, which no server can see.
_LOCK_SECONDS = 10
_TAG_BYTES = 100  # more than what a server says of a COPY


def environment() -> dict[str, str]:
    """What libpq's programs need of our environment to find a passfile."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


class Pieces:
    """A stream of pieces as one of bytes; never more than a piece is held."""

    def __init__(self, pieces: Iterator[Blob]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readinto(self, view: memoryview) -> int:
        """The next bytes, as many as are at hand; 0 at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class BytesReader(Pieces):
    """The content of an entry that is at hand."""

    def __init__(self, entry: Entry, body: bytes) -> None:
        super().__init__(iter([body]))
        self._entry = entry

    def close(self) -> Entry:
        """The entry as it was."""
        return self._entry


class PiecesReader:
    """Content that comes in pieces over a connection; with ``count_rows`` they are rows of COPY."""

    def __init__(
        self, entry: Entry, pieces: Iterator[Blob], address: Address, *, count_rows: bool = False
    ) -> None:
        self._entry = entry
        self._pieces = Pieces(self._counted(pieces) if count_rows else pieces)
        self._address = address
        self._count_rows = count_rows
        self._rows = 0

    def readinto(self, view: memoryview) -> int:
        """The next bytes, as many as fit; raises what `told` makes of the server's errors."""
        try:
            return self._pieces.readinto(view)
        except psycopg.Error as error:
            raise told_of_reading(error, self._address) from error

    def close(self) -> Entry:
        """The entry, with the number of its rows where they were counted."""
        return _with_rows(self._entry, self._rows) if self._count_rows else self._entry

    def _counted(self, pieces: Iterator[Blob]) -> Iterator[Blob]:
        for piece in pieces:
            self._rows += bytes(piece).count(b"\n")
            yield piece


class CopyReader:
    """Rows of COPY that `psql` writes."""

    def __init__(self, entry: Entry, program: CopyProgram) -> None:
        self._entry = entry
        self._program = program

    def readinto(self, view: memoryview) -> int:
        """The next bytes, as many as there are."""
        return self._program.readinto(view)

    def close(self) -> Entry:
        """
        The entry with the number of its rows, once the program has ended well.

        Raises SourceUnavailable where it did not.
        """
        with self._program as program:
            try:
                program.finish()
                rows = program.rows()
            except KryonixError as error:
                raise SourceUnavailable(f"{self._entry.text}: {error.message}") from error
        return _with_rows(self._entry, rows)


def _with_rows(entry: Entry, rows: int) -> Entry:
    return entry._replace(meta={**entry.meta, "rows": rows})


def copied(connection: Connection, query: sql.Composed) -> Iterator[Blob]:
    """
    The rows of a small table by COPY, over the connection that holds the snapshot.

    Starting a program costs more than such a table; for a large one the driver is too slow, as it
    gives every row by itself.
    """
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        piece = bytearray()
        for row in copy:
            piece += row
            if len(piece) >= _PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)


class CopyProgram(Program):
    """`psql` writing the rows of a query, as they are in an exported snapshot."""

    def __init__(
        self, programs: Path, address: Address, snapshot: str, query: str, encoding: str
    ) -> None:
        # Rows go to another stream than what is said of them, or psql would not say it. To count
        # them here takes as long as to name their chunks, and no other thread runs meanwhile.
        script = (
            f"set lock_timeout = '{_LOCK_SECONDS}s';\n"
            "begin isolation level repeatable read read only;\n"
            f"set transaction snapshot '{snapshot}';\n"
            f"\\set QUIET off\n{query} \\g /dev/stdout\n"
        )
        self._tag = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        with tempfile.TemporaryFile() as commands:
            commands.write(script.encode(encoding))
            commands.flush()
            files = (commands.fileno(), self._tag.fileno())
            words: list[str | Path] = [programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"]
            words += ["-d", conninfo(address, client_encoding=encoding)]
            words += ["-f", f"/dev/fd/{files[0]}", "-o", f"/dev/fd/{files[1]}"]
            super().__init__(words, env=environment(), writes=True, files=files)

    def rows(self) -> int:
        """How many rows the server has given, by its own count; raises SourceError."""
        tag = os.pread(self._tag.fileno(), _TAG_BYTES, 0).decode()
        name, _, count = tag.rstrip("\n").partition(" ")
        if name != "COPY" or not count.isdecimal():
            raise SourceError(f"{self.name} ended without saying how many rows there are")
        return int(count)

    def stop(self) -> None:
        """End it where it still runs, and let go of it; twice does nothing."""
        super().stop()
        self._tag.close()


def schema_by_pg_dump(
    programs: Path, address: Address, snapshot: str, ours: str, encoding: str
) -> Program:
    """`pg_dump` writing an archive of everything but rows, and but our own schema."""
    where = conninfo(address, client_encoding=encoding)
    words: list[str | Path] = [programs / "pg_dump", "-d", where, "--format=custom"]
    words += [f"--lock-wait-timeout={_LOCK_SECONDS * 1000}"]
    words += ["--schema-only", "--compress=0", f"--snapshot={snapshot}", f"--exclude-schema={ours}"]
    return Program(words, env=environment(), writes=True)


def large_object(
    connection: Connection, oid: int, piece_bytes: int = _PIECE_BYTES
) -> Iterator[Blob]:
    """The content of a large object, piece by piece."""
    offset = 0
    while True:
        row = connection.execute(
            "select lo_get(%s, %s, %s)", (oid, offset, piece_bytes), binary=True
        ).fetchone()
        assert row is not None
        if not row[0]:
            return
        yield row[0]
        offset += len(row[0])


def told_of_reading(error: psycopg.Error, address: Address) -> KryonixError:
    """What a snapshot sees can be gone by name all the same."""
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn):
        return SourceUnavailable(
            f"{address.shown}: {error.diag.message_primary}: it was dropped or renamed while the"
            " database was read",
            "Nothing is wrong with it: run the backup again, when no such change is made.",
        )
    return told(error, address)
