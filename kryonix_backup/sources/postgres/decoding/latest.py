"""
The changes of one table, of which most are kept as the log has them until they are applied.

A *plain* change is a row that comes or goes, or that is written out whole under the key that it
had. Of those only the key is looked at, and of each key the newest row is kept. Every other change
goes to a `TableNet`; what is known of the keys that it touches is handed over to it first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct

from kryonix_backup.errors import Damaged
from kryonix_backup.sources.postgres.decoding import encoding, pgoutput
from kryonix_backup.sources.postgres.decoding.net import TableNet
from kryonix_backup.sources.postgres.decoding.pgoutput import UNCHANGED, Relation, Row, Value

ROW_AT = 6
"""Where the row is in a plain message: after its kind, the table, and what it is."""

_LENGTH = Struct(">I").unpack_from
_COUNT = Struct(">H").pack
_FIRST = 2  # where the first value of a row is
_HEAD = 5  # bytes before a value that is there
_UNKNOWN = b""  # stands for what is known of a key that was not touched; no row is empty


class Latest:
    """
    The changes of one table since they were last applied; rows are bytes of a message.

    Changes mean what they mean in `TableNet`, and raise what that raises, and Damaged.
    """

    def __init__(self, relation: Relation) -> None:
        self.relation = relation
        self.net = TableNet(relation)
        """What is not plain, and everything else of the same keys."""
        self.rows: dict[bytes, bytes | None] = {}
        """The newest row of each key, None where it went; where rows have one."""
        self.fresh: set[bytes] = set()
        """Those keys that the table did not hold before."""
        self.came: dict[bytes, int] = {}
        """How many equal rows came; where rows have no key."""
        self._handed: set[bytes] = set()
        self._width = _COUNT(len(relation.columns))
        self._key_width = _COUNT(len(relation.keys))
        self._start = self._width + b"t" if relation.keys == (0,) else None

    def __len__(self) -> int:
        return len(self.rows) + len(self._handed) + len(self.came) + len(self.net.rows)

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to apply."""
        return self.net.truncated or len(self) > 0

    def insert(self, row: bytes) -> None:
        """A row came."""
        if b"u" in row and not pgoutput.is_whole(row):
            self.net.insert(pgoutput.row(row))  # which says what is wrong with it
        elif not self.net.by_key:
            if row[:_FIRST] != self._width:
                self.net.check(pgoutput.row(row))
            self.came[row] = self.came.get(row, 0) + 1
        else:
            key = self._key(row)
            if key in self._handed or self.rows.get(key):
                self._hand_over(key)
                self.net.insert(pgoutput.row(row))
                return
            if key not in self.rows:
                self.fresh.add(key)
            self.rows[key] = row

    def update(self, row: bytes) -> None:
        """A row changed, but not its identity."""
        if not self.net.by_key or (b"u" in row and not pgoutput.is_whole(row)):
            self.change(None, pgoutput.row(row))
            return
        key = self._key(row)
        if self.rows.get(key) or self._is_there(key):
            self.rows[key] = row
        else:
            self._hand_over(key)
            self.net.update(None, pgoutput.row(row))

    def delete(self, row: bytes) -> None:
        """A row went, of which this is the identity, or all."""
        if not self.net.by_key or (b"u" in row and not pgoutput.is_whole(row)):
            self.change(pgoutput.row(row), None)
            return
        key = self._key(row)
        if not self._is_there(key):
            self._hand_over(key)
            self.net.delete(pgoutput.row(row))
        elif key in self.fresh:
            del self.rows[key]  # it came and went
            self.fresh.remove(key)
        else:
            self.rows[key] = None

    def change(self, old: Row | None, new: Row | None) -> None:
        """A row changed in a way that is not plain, or went; ``old`` is its identity, or all."""
        if self.net.by_key:
            for row in (old, new):
                if row is not None:
                    self._hand_over_key(row, old)
        elif old is not None:
            for _ in range(self.came.pop(pgoutput.encoded_row(old), 0)):
                self.net.insert(old)
        if new is not None:
            self.net.update(old, new)
        elif old is not None:
            self.net.delete(old)

    def truncate(self) -> None:
        """Every row went, those before too."""
        for known in (self.rows, self.fresh, self.came, self._handed):
            known.clear()
        self.net.truncate()

    def key_row(self, key: bytes) -> bytes:
        """The values of a key, as a row of their own."""
        return self._key_width + key

    # ------------------------------------------------------------------ keys

    def _is_there(self, key: bytes) -> bool:
        """Whether there is a row of that key, as far as is known here."""
        held = self.rows.get(key, _UNKNOWN)
        if held is _UNKNOWN:
            return not self.net.truncated and key not in self._handed
        return held is not None

    def _key(self, row: bytes) -> bytes:
        """The values of the key, each with its length."""
        if row[:3] == self._start and len(row) >= _FIRST + _HEAD:
            end = _FIRST + _HEAD + _LENGTH(row, _FIRST + 1)[0]
            if end <= len(row):
                return row[_FIRST:end]
        values = pgoutput.row(row)
        self.net.check(values)
        return self._encoded_key(values, values)

    def _encoded_key(self, row: Row, old: Row) -> bytes:
        values = [old[at] if row[at] is UNCHANGED else row[at] for at in self.relation.keys]
        return b"".join(map(pgoutput.encoded, values))

    # ------------------------------------------------------------------ handing over

    def _hand_over_key(self, row: Row, old: Row | None) -> None:
        """A long value in a key comes with the old row even where it did not change."""
        if len(row) == len(self.relation.columns):
            self._hand_over(self._encoded_key(row, row if old is None else old))

    def _hand_over(self, key: bytes) -> None:
        row = self.rows.pop(key, _UNKNOWN)
        self._handed.add(key)
        if row is _UNKNOWN:
            return
        if row is None:
            self.net.delete(self._identity(key))
        elif key in self.fresh:
            self.fresh.remove(key)
            self.net.insert(pgoutput.row(row))
        else:
            self.net.update(None, pgoutput.row(row))

    def _identity(self, key: bytes) -> Row:
        row: list[Value] = [None] * len(self.relation.columns)
        for at, value in zip(self.relation.keys, pgoutput.row(self.key_row(key)), strict=True):
            row[at] = value
        return tuple(row)


def new_latest(oid: int, relations: Mapping[int, Relation]) -> Latest:
    """Of a table that was described in the log before; raises Damaged."""
    if oid not in relations:
        raise Damaged(f"the transaction log changes table {oid} before it says what it is")
    return Latest(relations[oid])


def takers(oid: int, table: Latest) -> dict[bytes, Callable[[bytes], None]]:
    """What takes the row of each plain message, by the `ROW_AT` bytes before the row."""
    return {
        encoding.came(oid): table.insert,
        encoding.changed(oid): table.update,
        encoding.gone(oid, whole=False): table.delete,
        encoding.gone(oid, whole=True): table.delete,
    }
