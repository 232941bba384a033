"""
A stretch of a database's log, folded into what it comes to, and said in the log's own words.

What comes out is one transaction of the messages of pgoutput: of each key only its last change, in
the order of the log wherever that matters. A replay reads it as it reads a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

from kryonix_backup.errors import Damaged, LogBroken
from kryonix_backup.sources.postgres.decoding import encoding, pgoutput, sample
from kryonix_backup.sources.postgres.decoding.latest import ROW_AT, Latest, new_latest, takers
from kryonix_backup.sources.postgres.decoding.message import PREFIX, Beat, parse
from kryonix_backup.sources.postgres.decoding.pgoutput import UNCHANGED, Change, Relation, Row
from kryonix_backup.sources.postgres.server.address import SCHEMA
from kryonix_backup.sources.source import Stretch

MOST_KEYS = 300_000
"""So many are folded in memory, as in a replay."""
MOST_BYTES = 256 << 20
"""So many bytes of messages are folded in memory: rows may be long."""

_PIECE_BYTES = 1 << 20
_LOOK_EVERY = 1024
_NOTHING: tuple[bytes, ...] = ()


class Fold:
    """
    One stretch, being folded; `pieces` is read once.

    ``changes`` is how many changes came out so far. Raises Damaged, and ValidationFailed where
    changes contradict each other.
    """

    def __init__(
        self, stretch: Stretch, *, most_keys: int | None = None, most_bytes: int = MOST_BYTES
    ) -> None:
        self.changes = 0
        self._stretch = stretch
        self._most_keys = most_keys or MOST_KEYS
        self._most_bytes = most_bytes
        self._tables: dict[int, Latest] = {}
        self._plain: dict[bytes, Callable[[bytes], None]] = {}
        self._relations: dict[int, Relation] = {}
        self._messages: dict[int, bytes] = {}  # that say what each table is like
        self._told: dict[int, bytes] = {}  # those of them that were written last
        self._ours: dict[int, bool] = {}  # whether changes of the schema are told in it
        self._reached = stretch.after
        self._lsn = 0
        self._wanted = False
        self._rows = self._bytes = 0
        self._beat: bytes | None = None
        self._take = {
            ord("B"): self._on_begin,
            ord("C"): self._on_commit,
            ord("R"): self._on_relation,
            ord("I"): self._on_insert,
            ord("U"): self._on_update,
            ord("D"): self._on_delete,
            ord("T"): self._on_truncate,
            ord("M"): self._on_message,
            ord("O"): self._pass,
            ord("Y"): self._pass,
            sample.KIND: self._pass,
        }

    def pieces(self) -> Iterator[bytes]:
        """The frames of one transaction, whose place is the last before the stretch's end."""
        out = bytearray()
        for message in self._messages_out():
            out += encoding.framed(message)
            if len(out) >= _PIECE_BYTES:
                yield bytes(out)
                out.clear()
        yield bytes(out)

    def _messages_out(self) -> Iterator[bytes]:
        end, time = self._stretch.end, self._stretch.time
        yield encoding.begin(end - 1, time)
        for _, body in self._stretch.segments:
            yield from self._taken(pgoutput.frames(body))
        yield from self._flush()
        if self._beat is not None:
            yield self._beat
        yield encoding.commit(end - 1, end, time)

    def _taken(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """Most messages are rows of a plain kind, which need only these few steps."""
        plain = self._plain
        for message in messages:
            take = plain.get(message[:ROW_AT])
            if take is None:
                other = self._take.get(message[0])
                if other is None:
                    raise Damaged(f"the log holds a message of the unknown kind {message[0]}")
                yield from other(message)
            elif self._wanted:
                take(message[ROW_AT:])
                if self._is_full(message):
                    yield from self._flush()

    # ------------------------------------------------------------------ rows

    def _table(self, oid: int) -> Latest:
        table = self._tables.get(oid)
        if table is None:
            table = self._tables[oid] = new_latest(oid, self._relations)
            self._plain |= takers(oid, table)
        return table

    def _on_insert(self, message: bytes) -> Iterable[bytes]:
        if not self._wanted:
            return _NOTHING
        oid = pgoutput.insert(message).oid
        if oid in self._ours:
            return self._as_it_is(oid, message) if self._ours[oid] else _NOTHING
        self._table(oid).insert(message[ROW_AT:])
        return _NOTHING

    def _on_update(self, message: bytes) -> Iterable[bytes]:
        if not self._wanted:
            return _NOTHING
        change = pgoutput.update(message)
        if change.oid in self._ours:
            return _NOTHING
        table = self._table(change.oid)
        if table.net.by_key and _moves_unseen(table.relation, change):
            return self._as_it_is(change.oid, message)
        table.change(change.old, change.new)
        return self._flush() if self._is_full(message) else _NOTHING

    def _on_delete(self, message: bytes) -> Iterable[bytes]:
        if not self._wanted:
            return _NOTHING
        change = pgoutput.delete(message)
        if change.oid not in self._ours:
            self._table(change.oid).change(change.old, None)
        return _NOTHING

    def _on_truncate(self, message: bytes) -> Iterable[bytes]:
        if self._wanted:
            for oid in pgoutput.truncated(message):
                if oid not in self._ours:
                    self._table(oid).truncate()
        return _NOTHING

    def _is_full(self, message: bytes) -> bool:
        """Whether what is held has to be written: memory has its bounds."""
        self._rows += 1
        self._bytes += len(message)
        return self._bytes >= self._most_bytes or (
            self._rows % _LOOK_EVERY == 0
            and sum(len(table) for table in self._tables.values()) >= self._most_keys
        )

    def _as_it_is(self, oid: int, message: bytes) -> Iterator[bytes]:
        """A change that cannot be folded: everything before it comes before it."""
        yield from self._flush()
        yield from self._described(oid)
        self.changes += 1
        yield message

    # ------------------------------------------------------------------ everything else

    def _pass(self, _message: bytes) -> Iterable[bytes]:
        """Origins and types say nothing that a replay needs; large objects are looked at anew."""
        return _NOTHING

    def _on_begin(self, message: bytes) -> Iterable[bytes]:
        began = pgoutput.begin(message)
        self._lsn = began.lsn
        self._wanted = began.lsn >= self._reached
        return _NOTHING

    def _on_commit(self, _message: bytes) -> Iterable[bytes]:
        if self._wanted:
            self._reached = self._lsn + 1
        self._wanted = False
        return _NOTHING

    def _on_relation(self, message: bytes) -> Iterator[bytes]:
        relation = pgoutput.relation(message)
        oid = relation.oid
        if self._relations.get(oid, relation) != relation and oid in self._tables:
            yield from self._flush()  # what came before was of the table as it was
        self._relations[oid], self._messages[oid] = relation, message
        if relation.schema == SCHEMA:
            self._ours[oid] = relation.name == "told"

    def _on_message(self, message: bytes) -> Iterable[bytes]:
        prefix, content = pgoutput.logical(message)
        if prefix != PREFIX:
            return _NOTHING
        if isinstance(parse(content), Beat):
            self._beat = message
        elif self._wanted:
            raise LogBroken("the log holds a change of the schema that cannot be repeated")
        return _NOTHING

    # ------------------------------------------------------------------ what comes out

    def _flush(self) -> Iterator[bytes]:
        """Everything that is held: tables that were emptied first and together, then rows."""
        tables = {oid: each for oid, each in self._tables.items() if each.is_changed}
        self._tables = {}
        self._plain.clear()
        self._bytes = 0
        emptied = [oid for oid, table in tables.items() if table.net.truncated]
        for oid in emptied:
            yield from self._described(oid)
        if emptied:
            self.changes += 1
            yield encoding.truncate(emptied)
        for oid, table in tables.items():
            yield from self._described(oid)
            for message in _by_key(table) if table.net.by_key else _whole_rows(table):
                self.changes += 1
                yield message

    def _described(self, oid: int) -> Iterator[bytes]:
        if self._told.get(oid) != self._messages[oid]:
            self._told[oid] = self._messages[oid]
            yield self._messages[oid]


def _moves_unseen(relation: Relation, change: Change) -> bool:
    """
    Whether a row gets another key, and has values that are not told with it.

    Where two such rows change places, no order of their last changes would say it.
    """
    old, new = change.old, change.new
    if old is None or new is None or UNCHANGED not in new or len(old) != len(new):
        return False
    # A long value in a key comes with the old row even where it did not change.
    at = [place for place in relation.keys if new[place] is not UNCHANGED]
    return any(new[place] != old[place] for place in at) and any(
        value is UNCHANGED and place not in relation.keys for place, value in enumerate(new)
    )


def _by_key(table: Latest) -> Iterator[bytes]:
    """Rows that went, before those that came: they may have had a value that is unique."""
    relation = table.relation
    for key in _gone(table):
        yield encoding.delete(relation, encoding.identity(relation, key))
    came, changed = encoding.came(relation.oid), encoding.changed(relation.oid)
    for known, row in table.rows.items():
        if row is not None:
            yield (came if known in table.fresh else changed) + row
    for state in table.net.keys.values():
        if state.row is not None:
            yield (changed if state.existed else came) + pgoutput.encoded_row(state.row)


def _gone(table: Latest) -> Iterator[Row]:
    for known, row in table.rows.items():
        if row is None:
            yield pgoutput.row(table.key_row(known))
    yield from (key for key, state in table.net.keys.items() if state.row is None)


def _whole_rows(table: Latest) -> Iterator[bytes]:
    relation = table.relation
    came = encoding.came(relation.oid)
    for known, count in table.came.items():
        yield from repeat(came + known, count)
    for row, count in table.net.rows.items():
        if count > 0:
            yield from repeat(encoding.insert(relation.oid, row), count)
        else:
            yield from repeat(encoding.delete(relation, row), -count)
