"""
Samples of a database's large objects, which are in no log: taken in a burst, before its beat.

Where anything may have changed, they are looked at, and a sample goes into the segment of the
burst. A look reads all rows that objects are made of, so that it may take no more than a part of
the time; what the server counts says when none is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import psycopg

from kryonix_backup.clock import Clock
from kryonix_backup.model import LogHeader
from kryonix_backup.sources.postgres.decoding import sample
from kryonix_backup.sources.postgres.decoding.sample import MARK
from kryonix_backup.sources.postgres.dumping.objects import (
    Now,
    about_objects,
    changed_objects,
    comments_on_objects,
    horizon_of_slot,
    mark_of,
    now_of,
    one_moment,
    runs_of_objects,
)
from kryonix_backup.sources.postgres.dumping.reading import large_object
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection, told

log = logging.getLogger(__name__)

_SHORT_S = 1.0  # a look that took no longer may be followed by another one at any time
_BUSY = 10  # any other is followed by so many times what it took without one
_IDLE = 100  # and where the server has counted no change, by so many,
_IDLE_S = 240.0  # or so many seconds: what it counts may come late, or never
_TRY_AGAIN_S = 600.0
_PER_FRAME = 2000
_T = TypeVar("_T")


class Sampler:
    """The large objects of one database, sampled again and again."""

    def __init__(
        self, connection: Connection, address: Address, clock: Clock, last: LogHeader, slot: str
    ) -> None:
        self.mark: Mapping[str, Any] | None = None
        """What the meta of the next segment says of the newest look; None where none ended well."""
        self._connection = connection
        self._address = address
        self._clock = clock
        # A chain that nothing was fetched of begins where its slot is, and so must its samples.
        self._start = horizon_of_slot(connection, slot) if last.number == 0 else None
        self._rest_until = 0.0
        self._is_told = False

    def frames(self, last: LogHeader) -> Iterator[bytes]:
        """
        A sample, or nothing where none is needed, or none can be taken now, which is told.

        What was given does not count unless ``mark`` is of its place. Rows are more: that objects
        cannot be read stops no log.
        """
        if self._clock.monotonic() < self._rest_until:
            return
        try:
            yield from self._frames(last)
        except psycopg.Error as error:
            if self._connection.closed:
                raise told(error, self._address) from error
            self._rest_until = self._clock.monotonic() + _TRY_AGAIN_S
            log.warning("no sample of large objects: %s", told(error, self._address).message)

    def _frames(self, last: LogHeader) -> Iterator[bytes]:
        now, known = now_of(self._connection), self.mark or last.meta.get(MARK)
        if now.at is None or not is_due(now, known) or not self._may_look(now):
            return
        since = self._start if known is None else int(known["horizon"])
        with one_moment(self._connection) as time:
            changed = changed_objects(self._connection, since, now.horizon)
            found = runs_of_objects(self._connection)
            total = sum(number for _, number in found)
            took = self._seconds_since(time)
            if total or _may_have_been(now, known):
                yield sample.begun(sample.Begun(now.at, time, total))
                yield from self._changed(changed)
                yield from map(sample.runs, _some(found))
                yield from map(sample.comments, _some(comments_on_objects(self._connection)))
                yield sample.ended()
            if since is not None:
                took = self._seconds_since(time)
        self.mark = {
            **mark_of(now.at, time, now.horizon, total), "seen": now.seen, "took": round(took, 3),
        }  # fmt: skip

    def _changed(self, oids: list[int]) -> Iterator[bytes]:
        for oid, meta in about_objects(self._connection, oids):
            yield sample.told(oid, meta)
            for piece in large_object(self._connection, oid, sample.PIECE_BYTES):
                yield sample.piece(bytes(piece))

    def _may_look(self, now: Now) -> bool:
        if now.may_look or not now.any:
            return now.may_look
        if not self._is_told:
            self._is_told = True
            log.warning(
                "%s: user %s may not see which large objects have changed; they can be restored as"
                " of full backups alone. 'kryonix source check' says what is lacking",
                self._address.shown,
                self._address.user,
            )
        return False

    def _seconds_since(self, time: datetime) -> float:
        row = self._connection.execute("select clock_timestamp()").fetchone()
        assert row is not None
        seconds: float = (row[0] - time).total_seconds()
        return max(seconds, 0.0)


def is_due(now: Now, known: Mapping[str, Any] | None) -> bool:
    """Whether it is time for a look, by the server's clock."""
    if known is None:
        return True
    rest = float(known["took"])
    ago = (now.time - datetime.fromisoformat(known["time"])).total_seconds()
    if ago < 0 or now.seen != known["seen"] or not now.counted:
        return rest < _SHORT_S or not 0 <= ago < rest * _BUSY
    return ago >= max(_IDLE_S, rest * _IDLE)


def _may_have_been(now: Now, known: Mapping[str, Any] | None) -> bool:
    """Whether a backup since the look before may hold objects, though there are none now."""
    if known is None or now.seen != known["seen"]:
        return now.ever or (known is not None and known["total"] > 0)
    return bool(known["total"])


def _some(of: Iterable[_T]) -> Iterator[list[_T]]:
    """All of them, so many at a time."""
    left = iter(of)
    while some := list(islice(left, _PER_FRAME)):
        yield some
