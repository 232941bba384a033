"""Following a database's log as the server sends it, by PostgreSQL's streaming replication."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from struct import Struct

import psycopg
from psycopg import pq
from psycopg.errors import Diagnostic, error_from_result

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import SourceUnavailable
from kryonix_backup.model import MIB, ChainId, LogHeader
from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.continuity import (
    broken,
    check_continuity,
    command,
    told_of_stream,
)
from kryonix_backup.sources.postgres.framing import Cutter
from kryonix_backup.sources.postgres.preparing import Prepared, beat
from kryonix_backup.sources.postgres.session import Connection, connected, translated
from kryonix_backup.sources.source import LogPiece, LogStream

_MOST_BYTES = 16 * MIB
_STATUS_S = 10.0
_POLL_S = 0.25  # how long `until` may wait to be asked
_END_S = 5.0
_ROUND = 2048  # messages between two looks at the clock
_DATA_BYTES = 25  # before a message: kind, where it is, where the WAL ends, when it was sent
_DATA, _KEEPALIVE = ord("w"), ord("k")
_ALIVE = Struct(">xQqB")  # where the WAL ends, when, whether to answer at once
_STATUS = Struct(">cQQQqB")
_SKIPPED = "55000"  # of the warning that a publication is missing, in every language

# The server must not give us up while a segment is being stored, nor keep a warning to itself.
_SESSION = ("SET wal_sender_timeout = '300s'", "SET client_min_messages = 'notice'")


class PostgresLog:
    """
    The log of one database, as its slot gives it.

    At most about twice ``most_bytes`` are held in memory, and one row.
    """

    def __init__(
        self, address: Address, clock: Clock | None = None, *, most_bytes: int = _MOST_BYTES
    ) -> None:
        self._address = address
        self._clock = clock or SystemClock()
        self._most = most_bytes

    def new_chain(self, prepared: Prepared) -> LogHeader:
        """The opening segment of a chain that begins where the slot does."""
        return LogHeader(
            chain=ChainId(""),
            number=0,
            start=prepared.start,
            end=prepared.start,
            first=None,
            last=None,
            restorable=None,
            commits=0,
            changes=0,
            meta={
                "log": f"{prepared.system}/{prepared.database}",
                "slot": prepared.slot,
                "publication": prepared.publication,
                "timeline": prepared.timeline,
                "system": prepared.system,
            },
        )

    @contextmanager
    def follow(self, opening: LogHeader, last: LogHeader) -> Iterator[LogStream]:
        """
        Go on after ``last``; the slot is free again when the context was left.

        Raises LogBroken, AlreadyRunning and SourceUnavailable.
        """
        with (
            connected(self._address) as ordinary,
            connected(self._address, replication="database") as replication,
        ):
            timeline = check_continuity(ordinary, replication, self._address, opening, last)
            cutter = Cutter(opening, last, self._most)
            stream = _Stream(ordinary, replication, self._address, self._clock, cutter)
            with stream.started(opening, last, timeline):
                yield stream


class _Stream:
    """The `LogStream` of a slot."""

    def __init__(
        self,
        ordinary: Connection,
        replication: Connection,
        address: Address,
        clock: Clock,
        cutter: Cutter,
    ) -> None:
        self._ordinary = ordinary
        self._pgconn = replication.pgconn
        self._replication = replication
        self._address = address
        self._clock = clock
        self._cutter = cutter
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._received = 0  # where the server's WAL is that it has told us of
        self._told_at = clock.monotonic()
        self._warning = ""
        self._over = False

    # ------------------------------------------------------------------ begin and end

    @contextmanager
    def started(self, opening: LogHeader, last: LogHeader, timeline: int) -> Iterator[None]:
        """The stream runs while this context lasts."""
        self._last, self._timeline = last, timeline
        slot, start = opening.meta["slot"], f"{last.end >> 32:X}/{last.end & 0xFFFFFFFF:X}"
        self._replication.add_notice_handler(self._notice)
        with self._explained():
            for statement in _SESSION:
                command(self._replication, statement)
            result = self._pgconn.exec_(
                f"START_REPLICATION SLOT \"{slot}\" LOGICAL {start} (proto_version '1',"
                f" publication_names '\"{slot}\"', messages 'true')".encode()
            )
            if result.status != pq.ExecStatus.COPY_BOTH:
                raise error_from_result(result)
            self._pgconn.nonblocking = 1
            self.confirm(last.end)  # it is durable, which a server that crashed may not know
        try:
            yield
        finally:
            self._end()

    def _end(self) -> None:
        """Give the slot back; a server that is too busy to listen learns it from the socket."""
        if self._over:
            return
        try:
            self._pgconn.put_copy_end()
            self._flush()
            deadline = self._clock.monotonic() + _END_S
            while self._clock.monotonic() < deadline:
                length, _ = self._pgconn.get_copy_data(1)
                if length < 0:
                    while self._pgconn.get_result() is not None:
                        pass
                    return
                if length == 0:
                    self._wait(_POLL_S)
        except psycopg.Error:
            pass  # whatever went wrong, the connection is closed next

    # ------------------------------------------------------------------ the port

    def pieces(self, until: Callable[[], bool], every: float) -> Iterator[LogPiece]:
        """What the log holds, a segment every so many seconds, each ending with a beat of ours."""
        cutter, clock = self._cutter, self._clock
        due = clock.monotonic() + every
        final = 0
        while True:
            if not final and until():
                final = self._ask_beat()
            elif self._is_due(due):
                self._ask_beat()
            self._read(_POLL_S)
            if cutter.is_over:
                piece = LogPiece(cutter.take(), cutter.close(self._timeline))
                assert piece.header is not None
                self._last = piece.header
                yield piece
                self._check_publication()
                if 0 < final <= cutter.newest_beat:
                    return
                due = clock.monotonic() + every
            elif cutter.is_full:
                yield LogPiece(cutter.take(), None)

    def confirm(self, end: int) -> None:
        """Let the server drop what it kept up to there."""
        with self._explained():
            self._tell(end)

    def _is_due(self, due: float) -> bool:
        """Whether it is time to end the segment, and no beat is under way yet."""
        cutter = self._cutter
        if cutter.awaited:
            return False
        # A full buffer ends a segment anyway; one that is half full can still get its beat.
        return cutter.size >= cutter.most // 2 or self._clock.monotonic() >= due

    def _ask_beat(self) -> int:
        with translated(self._address):
            place = beat(self._ordinary)
        self._cutter.awaited = place
        return place

    def _check_publication(self) -> None:
        if self._cutter.replaced:
            raise broken(self._address, self._last, "our publication was dropped or replaced")

    # ------------------------------------------------------------------ the wire

    def _read(self, patience: float) -> None:
        """Take in what is there, or wait a little for it; back where there is something to do."""
        with self._explained():
            self._take_in(patience)
            if self._clock.monotonic() - self._told_at >= _STATUS_S:
                self._tell(0)
        self._check_warning()

    def _take_in(self, patience: float) -> None:
        get, add = self._pgconn.get_copy_data, self._cutter.add
        for _ in range(_ROUND):
            length, data = get(1)
            if length > 0:
                if data[0] == _DATA:
                    if add(bytes(data[_DATA_BYTES:])):
                        return
                elif data[0] == _KEEPALIVE:
                    self._answer(bytes(data))
            elif length < 0:
                self._ended()
            elif not self._wait(patience):
                return

    def _wait(self, patience: float) -> bool:
        """Whether there is something to read within so many seconds."""
        if not self._poll.poll(patience * 1000):
            return False
        self._pgconn.consume_input()
        return True

    def _answer(self, keepalive: bytes) -> None:
        self._received, _, at_once = _ALIVE.unpack(keepalive)
        if at_once:
            self._tell(0)

    def _tell(self, confirmed: int) -> None:
        """
        Say that we live, and what is durable, or nothing about that.

        A server that shuts down waits until its whole log was received, by what is said here of
        that; what is confirmed moves the slot, and so must never run ahead of what is stored.
        """
        received = max(self._received, confirmed)
        self._pgconn.put_copy_data(_STATUS.pack(b"r", received, confirmed, confirmed, 0, 0))
        self._flush()
        self._told_at = self._clock.monotonic()

    def _flush(self) -> None:
        while self._pgconn.flush():
            self._pgconn.consume_input()  # a server that cannot send does not listen either
            writable = select.poll()
            writable.register(self._pgconn.socket, select.POLLIN | select.POLLOUT)
            writable.poll(_POLL_S * 1000)

    def _ended(self) -> None:
        """The server has ended the stream; raises why."""
        self._over = True
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
        raise SourceUnavailable(
            f"{self._address.shown}: the server has ended the stream of its log"
        )

    # ------------------------------------------------------------------ what went wrong

    def _notice(self, said: Diagnostic) -> None:
        if said.sqlstate == _SKIPPED:
            self._warning = said.message_primary or "a publication was skipped"

    def _check_warning(self) -> None:
        if self._warning:
            raise broken(self._address, self._last, self._warning)

    def _explained(self) -> AbstractContextManager[None]:
        return _explained(self._address, self._last)


@contextmanager
def _explained(address: Address, last: LogHeader) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise told_of_stream(error, address, last) from error
