"""What every stream of a server's log needs on the wire: reading, telling, and coming to an end."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import Struct

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from kryonix_backup.clock import Clock
from kryonix_backup.errors import SourceUnavailable
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection

POLL_S = 0.25
"""How long one look for something to read may take."""
DATA_BYTES = 25
"""Before what is in a message: kind, where it is, where the WAL ends, when it was sent."""

_STATUS_S = 10.0
_END_S = 5.0
_ROUND = 2048  # messages between two looks at the clock
_DATA, _KEEPALIVE = ord("w"), ord("k")
_ALIVE = Struct(">xQqB")  # where the WAL ends, when, whether to answer at once
_STATUS = Struct(">cQQQqB")


class Wire:
    """
    The stream of a replication connection, in both directions.

    Every method but the end of `started` raises the driver's errors.
    """

    def __init__(self, replication: Connection, address: Address, clock: Clock) -> None:
        self._pgconn = replication.pgconn
        self._address = address
        self._clock = clock
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._received = 0  # where the server's WAL is that it has told us of
        self._told_at = clock.monotonic()
        self._over = False

    def start(self, command: str) -> None:
        """Begin the stream that a command asks for."""
        result = self._pgconn.exec_(command.encode())
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise error_from_result(result)
        self._pgconn.nonblocking = 1

    @contextmanager
    def ended(self) -> Iterator[None]:
        """At the end of this context the stream is over, and its slot is free."""
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
                    self._wait(POLL_S)
        except psycopg.Error:
            pass  # whatever went wrong, the connection is closed next

    def read(self, add: Callable[[memoryview], bool]) -> None:
        """
        Give ``add`` every message of data that is there, or wait a little for one.

        Back where ``add`` says that there is something to do.
        """
        self._take_in(add)
        if self._clock.monotonic() - self._told_at >= _STATUS_S:
            self.tell(0)

    def tell(self, confirmed: int) -> None:
        """
        Say that we live, and what is durable, or nothing about that.

        A server that shuts down waits until its whole log was received, by what is said here of
        that; what is confirmed moves the slot, and so must never run ahead of what is stored.
        """
        received = max(self._received, confirmed)
        self._pgconn.put_copy_data(_STATUS.pack(b"r", received, confirmed, confirmed, 0, 0))
        self._flush()
        self._told_at = self._clock.monotonic()

    def _take_in(self, add: Callable[[memoryview], bool]) -> None:
        get = self._pgconn.get_copy_data
        for _ in range(_ROUND):
            length, data = get(1)
            if length > 0:
                if data[0] == _DATA:
                    if add(data):
                        return
                elif data[0] == _KEEPALIVE:
                    self._answer(bytes(data))
            elif length < 0:
                self._ended()
            elif not self._wait(POLL_S):
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
            self.tell(0)

    def _flush(self) -> None:
        while self._pgconn.flush():
            self._pgconn.consume_input()  # a server that cannot send does not listen either
            writable = select.poll()
            writable.register(self._pgconn.socket, select.POLLIN | select.POLLOUT)
            writable.poll(POLL_S * 1000)

    def _ended(self) -> None:
        """The server has ended the stream; raises why."""
        self._over = True
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
        raise SourceUnavailable(
            f"{self._address.shown}: the server has ended the stream of its log"
        )
