"""A base backup as the server sends it, by the replication protocol of PostgreSQL 15 and later."""

from __future__ import annotations

import secrets
import select
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from kryonix_backup.errors import SourceUnprepared
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.exported import lsn_of
from kryonix_backup.sources.postgres.server.session import Connection, translated

_OPTIONS = "LABEL 'kryonix-backup', CHECKPOINT 'fast', WAL true, MANIFEST 'yes'"
_WAIT_S = 60.0
_DATA, _MANIFEST = ord("d"), ord("m")


class Place(NamedTuple):
    """A place in the WAL."""

    lsn: int
    timeline: int


class BaseBackup:
    """
    One base backup of a server, with the WAL that it needs.

    ``archive`` is read to its end, then ``manifest``, then ``finish`` says where it ended. Raises
    what `translated` raises.
    """

    def __init__(self, replication: Connection, address: Address) -> None:
        self._pgconn = replication.pgconn
        self._address = address
        self.start = Place(0, 0)

    def begin(self) -> None:
        """Have the server start a full backup; raises SourceUnprepared where there can be none."""
        with translated(self._address):
            self._begin(None)

    def begin_after(self, manifest: Iterable[bytes]) -> str:
        """
        Have it start one of what changed since an earlier one; why it does not, or nothing.

        A server that is gone says nothing about the earlier one, and is raised.
        """
        with translated(self._address):
            try:
                self._begin(manifest)
            except psycopg.DatabaseError as error:
                if error.sqlstate is None:
                    raise
                return " ".join((error.diag.message_primary or str(error)).split())
        return ""

    def _begin(self, since: Iterable[bytes] | None) -> None:
        # What is written while the backup runs must still be there at its end.
        slot = f"kryonix_base_{secrets.token_hex(8)}"
        self._run(f"CREATE_REPLICATION_SLOT {slot} TEMPORARY PHYSICAL RESERVE_WAL")
        if since is not None:
            self._upload(since)
        incremental = "" if since is None else ", INCREMENTAL"
        self._send(f"BASE_BACKUP ({_OPTIONS}{incremental})")
        self.start = _place(self._result(pq.ExecStatus.TUPLES_OK))
        spaces = self._result(pq.ExecStatus.TUPLES_OK)
        if spaces.ntuples > 1:
            raise SourceUnprepared(
                f"{self._address.shown}: the cluster has tablespaces of its own, outside of its"
                " data directory, which a physical backup cannot hold",
                "Move their tables into pg_default, or back up its databases one by one.",
            )
        self._result(pq.ExecStatus.COPY_OUT)

    def archive(self) -> Iterator[memoryview]:
        """The tar stream of the data directory, piece by piece; raises SourceUnavailable."""
        with translated(self._address):
            while (message := self._message()) is not None:
                if message[0] == _MANIFEST:
                    return
                if message[0] == _DATA:
                    yield message[1:]
            # libpq gives a server's last word as the end of the copy: what comes next is that word.
            self._result(pq.ExecStatus.COPY_OUT)

    def manifest(self) -> Iterator[memoryview]:
        """The manifest, piece by piece."""
        with translated(self._address):
            while (message := self._message()) is not None:
                if message[0] == _DATA:
                    yield message[1:]

    def finish(self) -> Place:
        """Where the backup ended; raises SourceError where the server found it wrong."""
        with translated(self._address):
            end = _place(self._result(pq.ExecStatus.TUPLES_OK))
            self._rest()
            return end

    # ------------------------------------------------------------------ the wire

    def _message(self) -> memoryview | None:
        """The next message of the copy; None at its end."""
        while True:
            length, data = self._pgconn.get_copy_data(1)
            if length > 0:
                return data
            if length < 0:
                return None
            self._wait()

    def _upload(self, manifest: Iterable[bytes]) -> None:
        self._send("UPLOAD_MANIFEST")
        self._result(pq.ExecStatus.COPY_IN)
        for piece in manifest:
            self._pgconn.put_copy_data(piece)
        self._pgconn.put_copy_end()
        self._result(pq.ExecStatus.COMMAND_OK)
        self._rest()

    def _run(self, command: str) -> None:
        self._send(command)
        self._result(pq.ExecStatus.TUPLES_OK)
        self._rest()

    def _send(self, command: str) -> None:
        self._pgconn.send_query(command.encode())

    def _rest(self) -> None:
        """The end of an answer; what the server found wrong comes last of all."""
        while (result := self._next()) is not None:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise error_from_result(result)

    def _result(self, wanted: pq.ExecStatus) -> pq.abc.PGresult:
        result = self._next()
        if result is None:
            raise psycopg.OperationalError("the server has ended its answer too early")
        if result.status != wanted:
            raise error_from_result(result)
        return result

    def _next(self) -> pq.abc.PGresult | None:
        while self._pgconn.is_busy():
            self._wait()
        return self._pgconn.get_result()

    def _wait(self) -> None:
        select.select([self._pgconn.socket], [], [], _WAIT_S)
        self._pgconn.consume_input()


def _place(result: pq.abc.PGresult) -> Place:
    lsn, timeline = result.get_value(0, 0), result.get_value(0, 1)
    assert lsn is not None
    assert timeline is not None
    return Place(lsn_of(lsn.decode()), int(timeline))
