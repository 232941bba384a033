"""
Following a database's log, by PostgreSQL's streaming replication.

The log is fetched in bursts, one for each segment, and nobody reads the slot in between: a server
that sends every small transaction by itself, as it is committed, spends many times as much on it
as one that decodes a minute's at once, and so does whoever reads them (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain as joined

import psycopg
from psycopg.errors import Diagnostic

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.model import MIB, ChainId, LogHeader
from kryonix_backup.sources.postgres.decoding.framing import Cutter, Diverged
from kryonix_backup.sources.postgres.following.continuity import (
    broken,
    check_continuity,
    command,
    told_of_stream,
)
from kryonix_backup.sources.postgres.following.sampling import Sampler
from kryonix_backup.sources.postgres.following.wire import DATA_BYTES, Wire
from kryonix_backup.sources.postgres.preparation.beating import beat
from kryonix_backup.sources.postgres.preparation.preparing import Prepared
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection, connected, translated
from kryonix_backup.sources.postgres.server.turn import turn
from kryonix_backup.sources.source import LogPiece, LogStream

_MOST_BYTES = 16 * MIB
_SAMPLE_BYTES = 4 * MIB  # of a sample; a longer one is kept as chunks, of which most may be there
_LOOK_S = 0.25  # between two looks whether it is time
_REPLACED = "our publication was dropped or replaced"
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
        Go on after ``last``; nobody else follows this log while the context lasts.

        Raises AlreadyRunning and SourceUnavailable.
        """
        with connected(self._address) as ordinary, turn(ordinary, self._address):
            stream = _Stream(ordinary, self._address, self._clock, self._most, opening, last)
            try:
                yield stream
            finally:
                stream.close()


class _Stream:
    """The `LogStream` of a slot."""

    def __init__(
        self,
        ordinary: Connection,
        address: Address,
        clock: Clock,
        most: int,
        opening: LogHeader,
        last: LogHeader,
    ) -> None:
        self._ordinary = ordinary
        self._address = address
        self._clock = clock
        self._most = most
        self._opening = opening
        self._last = last
        self._sampler = Sampler(ordinary, address, clock, last, opening.meta["slot"])
        self._burst: _Burst | None = None
        self._under_way: Generator[LogPiece, None, None] | None = None

    def pieces(self, until: Callable[[], bool], every: float) -> Iterator[LogPiece]:
        """What the log holds, every so many seconds, each time up to then."""
        self._under_way = self._pieces(until, every)
        return self._under_way

    def close(self) -> None:
        """Give the slot back: an error that stopped who took pieces may hold on to them."""
        if self._under_way is not None:
            self._under_way.close()

    def _pieces(self, until: Callable[[], bool], every: float) -> Generator[LogPiece, None, None]:
        clock = self._clock
        due = clock.monotonic()
        while True:
            final = until()
            if final or clock.monotonic() >= due:
                due = clock.monotonic() + every
                yield from self._pieces_until_now()
                # Rows first: they are durable by now, however long a look at objects takes.
                sampled = self._sampler.frames(self._last)
                for first in sampled:
                    yield from self._pieces_until_now(joined((first,), sampled))
                if final:
                    return
            else:
                clock.sleep(min(_LOOK_S, every))

    def confirm(self, end: int) -> None:
        """Let the server drop what it kept up to there."""
        assert self._burst is not None, "nothing was fetched"
        self._burst.confirm(end)

    def _pieces_until_now(self, frames: Iterable[bytes] | None = None) -> Iterator[LogPiece]:
        opening, last = self._opening, self._last
        sampled = bytearray()
        for body in _bodies(frames or (), sampled):
            yield LogPiece(body, None)
        with connected(self._address, replication="database") as replication:
            there = check_continuity(self._ordinary, replication, self._address, opening, last)
            cutter = Cutter(opening, last, self._most, repeats=there.repeats)
            cutter.begin_with(bytes(sampled), self._sampler.mark, is_whole=frames is not None)
            self._burst = _Burst(self._ordinary, replication, self._address, self._clock, cutter)
            with self._burst.started(opening, last, there.timeline):
                for piece in self._burst.pieces():
                    self._last = piece.header or self._last
                    yield piece


def _bodies(frames: Iterable[bytes], rest: bytearray) -> Iterator[bytes]:
    """Frames in bodies; where they are few, they are all left in ``rest``."""
    held: list[bytes] = []
    size, is_long = 0, False
    for frame in frames:
        held.append(frame)
        size += len(frame)
        if size > _SAMPLE_BYTES:
            is_long = True
            yield from _aligned(held)
            held, size = [], 0
    if is_long:
        yield from _aligned(held)
    else:
        rest += b"".join(held)


def _aligned(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Each piece of a long object by itself: where it has not changed it is kept already."""
    small = bytearray()
    for frame in frames:
        if len(frame) < MIB:
            small += frame
            continue
        if small:
            yield bytes(small)
            small.clear()
        yield frame
    if small:
        yield bytes(small)


class _Burst:
    """One look at a slot: everything that was committed until it began, and little more."""

    def __init__(
        self,
        ordinary: Connection,
        replication: Connection,
        address: Address,
        clock: Clock,
        cutter: Cutter,
    ) -> None:
        self._ordinary = ordinary
        self._wire = Wire(replication, address, clock)
        self._replication = replication
        self._address = address
        self._cutter = cutter
        self._warning = ""

    @contextmanager
    def started(self, opening: LogHeader, last: LogHeader, timeline: int) -> Iterator[None]:
        """The stream runs while this context lasts."""
        self._last, self._timeline = last, timeline
        slot = opening.meta["slot"]
        self._replication.add_notice_handler(self._notice)
        with self._explained():
            for statement in _SESSION:
                command(self._replication, statement)
            self._wire.start(
                # From what the server knows to be confirmed: what comes again proves itself.
                f"START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1',"
                f" publication_names '\"{slot}\"', messages 'true')"
            )
        with self._wire.ended():
            yield

    def pieces(self) -> Iterator[LogPiece]:
        """What the log holds, up to a beat that is made now; the last segment ends with it."""
        cutter = self._cutter
        with translated(self._address):
            final = cutter.awaited = beat(self._ordinary)
        while True:
            self._read()
            if cutter.is_over:
                piece = LogPiece(cutter.take(), cutter.close(self._timeline))
                assert piece.header is not None
                self._last = piece.header
                yield piece
                if cutter.replaced:
                    raise broken(self._address, self._last, _REPLACED)
                if final <= cutter.newest_beat:
                    return
            elif cutter.is_full:
                yield LogPiece(cutter.take(), None)

    def confirm(self, end: int) -> None:
        """Let the server drop what it kept up to there."""
        with self._explained():
            self._wire.tell(end)

    def _read(self) -> None:
        """Take in what is there, or wait a little for it; back where there is something to do."""
        add = self._cutter.add
        with self._explained():
            try:
                self._wire.read(lambda data: add(bytes(data[DATA_BYTES:])))
            except Diverged as error:
                reason = "the server was put back to an earlier state, and has gone on from there"
                raise broken(self._address, self._last, reason) from error
        self._check_warning()

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
