"""Following a cluster's WAL as the server sends it, byte by byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import LogBroken
from kryonix_backup.model import MIB, ChainId, LogHeader
from kryonix_backup.sources.postgres.following.continuity import broken, command, told_of_stream
from kryonix_backup.sources.postgres.following.wire import DATA_BYTES, Wire
from kryonix_backup.sources.postgres.physical.address import SLOT, ClusterAddress
from kryonix_backup.sources.postgres.physical.paths import shown_lsn
from kryonix_backup.sources.postgres.physical.slot import (
    Beat,
    beat,
    begin,
    look_at,
    refuse_active,
    refuse_shared,
    slot_of,
)
from kryonix_backup.sources.postgres.server.exported import lsn_of
from kryonix_backup.sources.postgres.server.session import Connection, connected, translated
from kryonix_backup.sources.source import LogPiece, LogStream

_MOST_BYTES = 16 * MIB
_PAGE_BYTES = 8192
# The server must not give us up while a segment is being stored.
_PATIENCE = "-c wal_sender_timeout=300s -c TimeZone=UTC"


def log_of(system: str, timeline: int) -> str:
    """Which log a place is in: a server's, until it is promoted or put back."""
    return f"{system}/wal/{timeline}"


@contextmanager
def replicating(address: ClusterAddress) -> Iterator[Connection]:
    """A connection that takes replication commands; raises what `connected` raises."""
    with connected(address.server, replication="true", options=_PATIENCE) as connection:
        yield connection


class PhysicalLog:
    """
    The WAL of one cluster, as our slot keeps it.

    At most about ``most_bytes`` are held in memory. A chain is on one timeline: a server that was
    promoted begins another.
    """

    def __init__(
        self, address: ClusterAddress, clock: Clock | None = None, *, most_bytes: int = _MOST_BYTES
    ) -> None:
        self._address = address
        self._clock = clock or SystemClock()
        self._most = most_bytes

    def new_chain(self, *, renew: bool) -> LogHeader:
        """
        The opening segment of a chain, at the beginning of a file of the WAL.

        Raises SourceUnprepared and AlreadyRunning.
        """
        with connected(self._address.server) as connection:
            cluster = look_at(connection, self._address)
            start = begin(connection, self._address, renew=renew)
        start -= start % cluster.segment
        meta = {
            "log": log_of(cluster.system, cluster.timeline),
            "system": cluster.system,
            "timeline": cluster.timeline,
            "segment": cluster.segment,
            "slot": SLOT,
        }
        return LogHeader(ChainId(""), 0, start, start, None, None, None, 0, 0, meta=meta)

    @contextmanager
    def follow(self, opening: LogHeader, last: LogHeader) -> Iterator[LogStream]:
        """
        Go on after ``last``; the slot is free again when the context was left.

        Raises LogBroken, AlreadyRunning and SourceUnavailable.
        """
        server = self._address.server
        with (
            connected(server) as ordinary,
            replicating(self._address) as replication,
        ):
            refuse_shared(ordinary, self._address)
            self._check(ordinary, replication, opening, last)
            wire = Wire(replication, server, self._clock)
            stream = _Stream(ordinary, wire, self._address, self._clock, _Tape(last, self._most))
            with stream.started(opening, last):
                yield stream

    def _check(
        self, ordinary: Connection, replication: Connection, opening: LogHeader, last: LogHeader
    ) -> None:
        found = slot_of(ordinary)
        refuse_active(found, self._address)
        system, timeline, position = command(replication, "IDENTIFY_SYSTEM")[0][:3]
        meta, reason = opening.meta, None
        if system != meta["system"]:
            reason = f"this is another server (system {system} instead of {meta['system']})"
        elif int(timeline) != meta["timeline"]:
            reason = f"the server was promoted: it is on timeline {timeline}"
        elif lsn_of(position) < last.end:
            reason = "the server was put back to an earlier state"
        elif found is None:
            reason = f"slot {SLOT} is gone"
        elif found.lost or found.start is None:
            reason = f"the server has given up what slot {SLOT} kept"
        if reason is not None:
            raise broken(self._address.server, last, reason)


class _Tape:
    """
    The bytes of the WAL that were not handed on yet, without a gap and without a repetition.

    What comes first is the end of what was kept before, and must be the same: a server that was put
    back and has gone on since has other bytes there.
    """

    def __init__(self, last: LogHeader, most: int) -> None:
        tail = last.meta.get("tail")
        self.start, self._digest = (int(tail[0]), str(tail[1])) if tail else (last.end, "")
        self.end = self.start  # of what was received
        self.kept = last.end
        self.most = most
        self.awaited = 0
        self.gap = ""
        self._body = bytearray()

    @property
    def is_full(self) -> bool:
        """Whether there is as much as a segment holds."""
        return len(self._body) >= self.most

    def add(self, data: memoryview) -> bool:
        """Take a message in; whether there is something to do."""
        at = int.from_bytes(data[1:9])
        if at > self.end:
            self.gap = f"the server sent {shown_lsn(at)} after {shown_lsn(self.end)}"
            return True
        self._body += data[DATA_BYTES + self.end - at :]
        self.end = max(self.end, at + len(data) - DATA_BYTES)
        if self._digest and self.end >= self.kept:
            self._compare()
        return bool(self.gap) or self.is_full or 0 < self.awaited <= self.end

    def take(self) -> tuple[bytes, int, list[Any]]:
        """What came since it was taken last, where it begins, and how it is known again."""
        body, start = bytes(self._body), self.kept
        self._body.clear()
        self.kept = self.end
        since = (self.end - 1) // _PAGE_BYTES * _PAGE_BYTES
        since = max(since, start)
        return body, start, [since, _digest(body[since - start :])]

    def _compare(self) -> None:
        length = self.kept - self.start
        if _digest(bytes(self._body[:length])) != self._digest:
            self.gap = "the server was put back to an earlier state, and has gone on from there"
        del self._body[:length]
        self._digest = ""


class _Stream:
    """The `LogStream` of our slot."""

    def __init__(
        self,
        ordinary: Connection,
        wire: Wire,
        address: ClusterAddress,
        clock: Clock,
        tape: _Tape,
    ) -> None:
        self._ordinary = ordinary
        self._wire = wire
        self._address = address
        self._clock = clock
        self._tape = tape
        self._beat: Beat | None = None

    @contextmanager
    def started(self, opening: LogHeader, last: LogHeader) -> Iterator[None]:
        """The stream runs while this context lasts."""
        self._opening, self._last = opening, last
        timeline = opening.meta["timeline"]
        with self._explained():
            self._wire.start(
                f'START_REPLICATION SLOT "{SLOT}" PHYSICAL {shown_lsn(self._tape.start)}'
                f" TIMELINE {timeline}"
            )
        with self._wire.ended():
            yield

    def pieces(self, until: Callable[[], bool], every: float) -> Iterator[LogPiece]:
        """What the WAL holds, a segment every so many seconds, each ending with a beat of ours."""
        due = self._clock.monotonic() + every
        final = False
        while True:
            if not final and until():
                final = True
                self._ask_beat()
            elif self._beat is None and self._clock.monotonic() >= due:
                self._ask_beat()
            self._read()
            if self._beat is not None and self._beat.end <= self._tape.end:
                piece = self._piece(self._beat)
                self._beat, self._tape.awaited = None, 0
                yield piece
                if final:
                    return
                due = self._clock.monotonic() + every
            elif self._tape.is_full:
                yield self._piece(None)

    def confirm(self, end: int) -> None:
        """Let the server drop what it kept, but for the last page, by which we know it again."""
        with self._explained():
            self._wire.tell((end - 1) // _PAGE_BYTES * _PAGE_BYTES)

    def _ask_beat(self) -> None:
        with translated(self._address.server):
            refuse_shared(self._ordinary, self._address)
            self._beat = beat(self._ordinary)
        self._tape.awaited = self._beat.end

    def _read(self) -> None:
        with self._explained():
            self._wire.read(self._tape.add)
        if self._tape.gap:
            raise self._broken(self._tape.gap)

    def _piece(self, ended_by: Beat | None) -> LogPiece:
        body, start, tail = self._tape.take()
        self._last = LogHeader(
            self._opening.chain, 0, start, start + len(body), None, None,
            None if ended_by is None else ended_by.time, 0, 0,
            meta={"timeline": self._opening.meta["timeline"], "tail": tail},
        )  # fmt: skip
        return LogPiece(body, self._last)

    def _broken(self, reason: str) -> LogBroken:
        return broken(self._address.server, self._last, reason)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise told_of_stream(error, self._address.server, self._last) from error


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
