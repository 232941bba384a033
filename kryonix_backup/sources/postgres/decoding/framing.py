"""
A database's log as the frames of segments, each of which can be read without any other.

A *frame* is one message of pgoutput with its length in front, an unsigned big-endian 32-bit number.
Rows are not decoded here: of most messages only the first five bytes are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from struct import Struct
from typing import Any, NamedTuple

from kryonix_backup.errors import Damaged, SourceError
from kryonix_backup.model import LogHeader
from kryonix_backup.sources.postgres.decoding import pgoutput
from kryonix_backup.sources.postgres.decoding.message import PREFIX, Beat, Ddl, parse, told
from kryonix_backup.sources.postgres.decoding.sample import MARK
from kryonix_backup.sources.postgres.decoding.times import TWICE, CommitTimes, moment
from kryonix_backup.sources.postgres.server.address import SCHEMA

_ROWS = frozenset(b"IUD")
_COMMITTED = ord("C")
_BEGIN = Struct(">xQqI")  # where its commit is, the commit's time, transaction
_COMMIT = Struct(">xBQQq")  # flags, where it is, where it ends, time
_TRUNCATE = Struct(">xIB")  # how many tables, flags
_MESSAGE = Struct(">xBQ")  # flags, where it is
_U16, _U32 = Struct(">H"), Struct(">I")
_TRANSACTIONAL = 1
_OID_BYTES = 4
_LENGTH = _U32.pack
_OURS = PREFIX.encode()
_INSERTED = ord("I")
_TOLD = f"{SCHEMA}\0told\0".encode()
_OURS_ALL = f"{SCHEMA}\0".encode()
# After a transaction, this many times of what is held at most is enough for one segment.
_TIMES = 4


class Diverged(Exception):
    """What comes does not follow what is kept, though its place in the log does."""


class _Break(NamedTuple):
    """What a transaction did that cannot be replayed; a beat tells of it some time after."""

    reason: str
    time: int
    place: int
    since_unknown: bool


class Cutter:
    """
    Takes messages in, and gives frames out, cut into segments between two transactions.

    It never holds much more than twice ``most`` bytes, and one message. What was committed before
    the end of the segment ``last`` is left out: after a crash the server sends it again, which is
    what ``repeats`` says. Then the commit that ended the segment has to come again too: a server
    that was put back to an earlier state has another one there, or none.
    """

    def __init__(
        self, opening: LogHeader, last: LogHeader, most: int, *, repeats: bool = False
    ) -> None:
        self.inside = False
        """Whether a transaction was begun and not ended."""
        self.newest_beat = 0
        """Where the newest beat is whose transaction has ended."""
        self.awaited = 0
        """A beat at this place, or after it, ends the segment; 0 where none is under way."""
        self.replaced = False
        """Whether a beat found another publication than the chain began with."""
        self._is_whole = False
        self._mark = last.meta.get(MARK)
        self._publication = opening.meta["publication"]
        self.most = most
        """So many bytes end a segment, after the transaction that they are of."""
        self._bound = 2 * most
        self._last = last
        self._end = last.end
        self._skipping = False
        self._unproven = repeats and last.number > 0
        self._times = CommitTimes(last.last, last.meta.get(TWICE, ()))
        self._relations: dict[bytes, tuple[bytes, list[bytes]]] = {}
        self._types: dict[bytes, bytes] = {}
        self._of_ours: dict[bytes, bool] = {}  # whether changes of the schema are told in it
        self._beat, self._wrong = 0, ""  # of the transaction under way
        self._since_unknown = False
        self._begin_segment()

    def _begin_segment(self) -> None:
        self._frames = bytearray()
        self._given = 0
        self._told: set[bytes] = set()
        self._commits = self._changes = 0
        self._first: int | None = None
        self._newest: int | None = None
        self._restorable: int | None = None
        self._breaks: list[_Break] = []

    @property
    def size(self) -> int:
        """How many bytes the segment has so far, with those that were taken."""
        return self._given + len(self._frames)

    @property
    def is_full(self) -> bool:
        """Whether what is held has to be taken, though its transaction goes on."""
        return len(self._frames) >= self._bound

    @property
    def is_over(self) -> bool:
        """Whether the segment should end here: at its beat, or because it is long enough."""
        if self.inside or not self._commits:
            return False
        at_beat = 0 < self.awaited <= self.newest_beat
        if at_beat or self._is_whole:
            return at_beat
        return len(self._frames) >= self.most or self.size >= _TIMES * self.most

    def begin_with(self, sampled: bytes, mark: Mapping[str, Any] | None, *, is_whole: bool) -> None:
        """
        A sample of large objects comes before everything else; ``mark`` says of the newest one.

        Where it ``is_whole`` the segment ends with the beat that is awaited and not earlier: what
        was committed when the sample was taken is then known to last.
        """
        self._frames += sampled
        self._is_whole = is_whole
        self._mark = mark or self._mark

    def add(self, message: bytes) -> bool:
        """Take a message in; whether something has to be done before the next one."""
        kind = message[0]
        if kind in _ROWS:
            if self._skipping:
                return False
            relation = message[1:5]
            if relation not in self._told:
                self._tell(relation)
            if relation in self._of_ours:
                self._note_row(kind, message)
            else:
                self._changes += 1
        elif not self._is_kept(kind, message):
            return False
        frames = self._frames
        frames += _LENGTH(len(message))
        frames += message
        return (kind == _COMMITTED and self.is_over) or len(frames) >= self._bound

    def take(self) -> bytes:
        """The frames that are held, which are the caller's from now on."""
        body = bytes(self._frames)
        self._given += len(body)
        self._frames = bytearray()
        return body

    def close(self, timeline: int) -> LogHeader:
        """What the segment holds whose frames were taken; what comes next is another one's."""
        meta: dict[str, object] = {"timeline": timeline}
        if twice := self._times.told():
            meta[TWICE] = twice
        if self._mark is not None:
            meta[MARK] = dict(self._mark)
        broken = self._breaks[0].reason if self._breaks else ""
        if self._breaks:
            meta |= _told_of(self._breaks)
        header = LogHeader(
            self._last.chain,
            self._last.number + 1,
            self._last.end,
            self._end,
            None if self._first is None else moment(self._first),
            None if self._newest is None else moment(self._newest),
            self._known_until(),
            self._commits,
            self._changes,
            broken,
            meta,
        )
        self._last = header
        if self.awaited <= self.newest_beat:
            self.awaited = 0
        self._is_whole = False
        self._begin_segment()
        return header

    def _known_until(self) -> datetime | None:
        """None while a clock that was set back has not caught up: the same times still come."""
        time = self._restorable
        if time is None or self._times.was_twice(time):
            return None
        return moment(time - 1)  # a commit that comes after may be of the very microsecond

    # ------------------------------------------------------------------ what is no row

    def _is_kept(self, kind: int, message: bytes) -> bool:
        """Take note of a message; whether it belongs into the segment."""
        match chr(kind):
            case "B":
                return self._begin(message)
            case "C":
                return self._commit(message)
            case "R":
                return self._relation(message)
            case "Y":
                self._types[message[:5]] = message
                self._told.discard(message[:5])
                return False
            case "T":
                return self._truncate(message)
            case "M":
                return self._message(message)
            case "O":
                return not self._skipping
        raise SourceError(
            f"the server sent a message of an unknown kind, {chr(kind)!r}, in its log",
            "This version of PostgreSQL may be too new: use a newer kryonix-backup.",
        )

    def _begin(self, message: bytes) -> bool:
        commit, _, _ = _BEGIN.unpack(message)
        self.inside = True
        self._skipping = commit < self._end
        if self._unproven and not self._skipping:
            raise Diverged
        self._beat, self._wrong, self._since_unknown = 0, "", False
        return not self._skipping

    def _commit(self, message: bytes) -> bool:
        _, place, end, time = _COMMIT.unpack(message)
        self.inside = False
        if self._unproven and end >= self._end:
            self._prove(end, moment(time))
        if self._skipping != (end <= self._end):
            raise SourceError(f"the server sent its log out of order: {end:X} after {self._end:X}")
        if self._skipping:
            return False
        self._end = end
        self._commits += 1
        self._times.add(time)
        self._first = time if self._first is None else min(self._first, time)
        self._newest = time if self._newest is None else max(self._newest, time)
        if self._beat:
            self.newest_beat = self._beat
            self._restorable = time
        if self._wrong:
            self._breaks.append(_Break(self._wrong, time, place, self._since_unknown))
        return True

    def _prove(self, end: int, time: datetime) -> None:
        """That a commit which comes again is the one that ended the last segment."""
        first, newest = self._last.first, self._last.last
        assert first is not None
        assert newest is not None
        if end != self._end or not first <= time <= newest:
            raise Diverged
        self._unproven = False

    def _relation(self, message: bytes) -> bool:
        self._relations[message[1:5]] = (message, _types_of(message))
        if message.startswith(_OURS_ALL, 5):
            self._of_ours[message[1:5]] = message.startswith(_TOLD, 5)
        self._told.discard(message[1:5])
        return False  # it is written before the first row that needs it

    def _truncate(self, message: bytes) -> bool:
        if self._skipping:
            return False
        count, _ = _TRUNCATE.unpack_from(message)
        for start in range(_TRUNCATE.size, _TRUNCATE.size + count * _OID_BYTES, _OID_BYTES):
            relation = message[start : start + _OID_BYTES]
            if relation not in self._told:
                self._tell(relation)
        self._changes += 1
        return True

    def _message(self, message: bytes) -> bool:
        flags, place = _MESSAGE.unpack_from(message)
        if self._skipping or not flags & _TRANSACTIONAL:
            return False  # one that is not transactional is not the tenant's data, nor ours
        prefix = message.index(0, _MESSAGE.size)
        if message[_MESSAGE.size : prefix] == _OURS:
            self._note(place, message[prefix + 1 + _U32.size :])
        return True

    def _note(self, place: int, content: bytes) -> None:
        """Take one of our messages into account; whoever may write to the log may forge one."""
        try:
            said = parse(content)
        except Damaged as error:
            self._wrong = self._wrong or error.message
            return
        if isinstance(said, Beat):
            self._beat = place
            if said.publication != self._publication:
                self.replaced = True
                self._wrong = self._wrong or "our publication was dropped or replaced"
                self._since_unknown = True
        else:
            self._note_ddl(said, said.opaque or "it was not written by our trigger")

    def _note_row(self, kind: int, message: bytes) -> None:
        if kind != _INSERTED or not self._of_ours[message[1:5]]:
            return
        try:
            said = told(pgoutput.insert(message).new)
        except Damaged as error:
            self._wrong = self._wrong or error.message
        else:
            self._note_ddl(said, said.opaque)

    def _note_ddl(self, said: Ddl, wrong: str) -> None:
        if wrong:
            self._wrong = self._wrong or f"{said.tag}: {wrong}"

    def _tell(self, relation: bytes) -> None:
        """Write what a table looks like, once in a segment and whenever it changes."""
        known = self._relations.get(relation)
        if known is None:
            oid = int.from_bytes(relation)
            raise SourceError(f"the server sent a row of table {oid} without its columns")
        message, types = known
        for each in types:
            if each in self._types and each not in self._told:
                self._write(self._types[each])
        self._write(message)
        self._told.update(types, (relation,))

    def _write(self, message: bytes) -> None:
        self._frames += _LENGTH(len(message))
        self._frames += message


def _types_of(relation: bytes) -> list[bytes]:
    """The types of a table's columns, by the first bytes of the messages that describe them."""
    at = relation.index(0, relation.index(0, 1 + _OID_BYTES) + 1) + 2
    (count,) = _U16.unpack_from(relation, at)
    at += _U16.size
    found = []
    for _ in range(count):
        at = relation.index(0, at + 1) + 1
        found.append(b"Y" + relation[at : at + _OID_BYTES])
        at += 2 * _OID_BYTES
    return found


def _told_of(breaks: list[_Break]) -> dict[str, object]:
    """Where the first and the last are; the first only where none began before it was told."""
    first, last = breaks[0], breaks[-1]
    told: dict[str, object] = {
        "broken_at": moment(first.time).isoformat(), "broken_to": last.place
    }  # fmt: skip
    if not any(each.since_unknown for each in breaks):
        told["broken_from"] = first.place
    return told
