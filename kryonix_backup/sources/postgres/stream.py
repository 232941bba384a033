"""Following a database's log as the server sends it, by PostgreSQL's streaming replication."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
from psycopg.errors import Diagnostic

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.model import MIB, ChainId, LogHeader
from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.continuity import (
    broken,
    check_continuity,
    command,
    told_of_stream,
)
from kryonix_backup.sources.postgres.framing import Cutter, Diverged
from kryonix_backup.sources.postgres.preparing import Prepared, beat
from kryonix_backup.sources.postgres.session import Connection, connected, translated
from kryonix_backup.sources.postgres.wire import DATA_BYTES, Wire
from kryonix_backup.sources.source import LogPiece, LogStream

_MOST_BYTES = 16 * MIB
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
            there = check_continuity(ordinary, replication, self._address, opening, last)
            cutter = Cutter(opening, last, self._most, repeats=there.repeats)
            stream = _Stream(ordinary, replication, self._address, self._clock, cutter)
            with stream.started(opening, last, there.timeline):
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
        self._wire = Wire(replication, address, clock)
        self._replication = replication
        self._address = address
        self._clock = clock
        self._cutter = cutter
        self._warning = ""

    # ------------------------------------------------------------------ begin and end

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
            self._read()
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
            self._wire.tell(end)

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
