"""
What a stretch of the log comes to, table by table: for every key its last state.

Folding makes a replay bulk work: however often a row was changed, it is deleted once and written
once. It also knows what must have been there before, and the one who applies it can prove that it
was.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, cast

from kryonix_backup.errors import ValidationFailed
from kryonix_backup.sources.postgres.decoding.pgoutput import UNCHANGED, Relation, Row

Key = tuple[bytes | None, ...]


class State(NamedTuple):
    """
    What became of one key: ``row`` is its last one, None where there is none now.

    ``existed`` says whether the table held the key before. Values that are `UNCHANGED` are those
    of the row that the table held under the key ``origin``.
    """

    existed: bool
    row: Row | None
    origin: Key | None = None


class TableNet:
    """The changes of one table since they were last applied."""

    def __init__(self, relation: Relation) -> None:
        self.relation = relation
        self.truncated = False
        self.keys: dict[Key, State] = {}
        """By key, where rows have one."""
        self.rows: Counter[Row] = Counter()
        """How many equal rows came, or went where it is negative; where rows have no key."""
        self.by_key = relation.identity in "di" and bool(relation.keys)
        self._width = len(relation.columns)

    def __len__(self) -> int:
        return len(self.keys) + len(self.rows)

    def truncate(self) -> None:
        """Every row went, those before too."""
        self.truncated = True
        self.keys.clear()
        self.rows.clear()

    def insert(self, new: Row) -> None:
        """A row came."""
        self.check(new)
        if UNCHANGED in new:
            raise self._wrong("a new row without all of its values")
        if self.by_key:
            self._put(self._key(new), new, None)
        else:
            self._count(new, 1)

    def delete(self, old: Row) -> None:
        """A row went; ``old`` holds its identity."""
        self.check(old)
        if self.by_key:
            self._take(self._key(old))
        else:
            self._count(old, -1)

    def update(self, old: Row | None, new: Row) -> None:
        """A row changed; ``old`` is given where its identity did, or is the whole row."""
        self.check(new)
        if old is not None:
            self.check(old)
        if self.by_key:
            self._update(old, new)
        elif old is None:
            raise self._wrong("an update of a row without identity")
        else:
            self._count(old, -1)
            self._count(_filled(new, old), 1)

    # ------------------------------------------------------------------ whole rows

    def _count(self, row: Row, more: int) -> None:
        left = self.rows[row] + more
        if left:
            self.rows[row] = left
        else:
            del self.rows[row]  # what came and went, or went and came, needs no memory

    # ------------------------------------------------------------------ by key

    def _update(self, old: Row | None, new: Row) -> None:
        if old is not None and UNCHANGED in new:
            new = self._with_key(new, old)
        key = self._key(new if old is None else old)
        before = self._take(key)
        row = new if before is None else _filled(new, before.row)
        origin = key if before is None else before.origin
        self._put(self._key(new), row, origin if UNCHANGED in row else None)

    def _with_key(self, new: Row, old: Row) -> Row:
        """A long value in a key comes with the old row even where it did not change."""
        row = list(new)
        for place in self.relation.keys:
            if row[place] is UNCHANGED:
                row[place] = old[place]
        return tuple(row)

    def _take(self, key: Key) -> State | None:
        """Take the row of a key away; its state before, None where it was not touched yet."""
        state = self.keys.get(key)
        if state is None:
            if self.truncated:
                raise self._wrong("a change of a row that a truncation had removed")
            self.keys[key] = State(existed=True, row=None)
            return None
        if state.row is None:
            raise self._wrong("a change of a row that is not there")
        if state.existed:
            self.keys[key] = State(existed=True, row=None)
        else:
            del self.keys[key]  # it came and went
        return state

    def _put(self, key: Key, row: Row, origin: Key | None) -> None:
        state = self.keys.get(key)
        if state is not None and state.row is not None:
            raise self._wrong("a second row with the key of another one")
        self.keys[key] = State(state is not None and state.existed, row, origin)

    def _key(self, row: Row) -> Key:
        key = tuple([row[place] for place in self.relation.keys])
        if UNCHANGED in key:
            raise self._wrong("a row without its key")
        return cast(Key, key)

    def check(self, row: Row) -> None:
        """Raise ValidationFailed for a row that is too long or too short for the table."""
        if len(row) != self._width:
            raise self._wrong(f"a row of {len(row)} columns instead of {self._width}")

    def _wrong(self, what: str) -> ValidationFailed:
        return ValidationFailed(
            f"the transaction log holds {what} in table {self.relation.shown}",
            "The log cannot be replayed from this snapshot; restore the snapshot itself, or"
            " another one.",
        )


def _filled(new: Row, before: Row | None) -> Row:
    """The new row, with the values that the log does not hold taken from the one before."""
    if before is None or UNCHANGED not in new:
        return new
    return tuple(
        [old if value is UNCHANGED else value for value, old in zip(new, before, strict=True)]
    )
