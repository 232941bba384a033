"""A folded stretch of a log is a log of its own, and comes to what the stretch came to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from struct import pack
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from kryonix_backup.errors import Damaged, LogBroken, ValidationFailed
from kryonix_backup.model import ChainId, LogHeader
from kryonix_backup.sources.postgres.decoding import encoding, pgoutput
from kryonix_backup.sources.postgres.decoding.pgoutput import UNCHANGED, Change, Relation, Row
from kryonix_backup.sources.postgres.incremental.folding import Fold
from kryonix_backup.sources.source import Stretch
from kryonix_backup.testing.clock import NOON

KEYED = Relation(1, "public", "t", "d", ("a", "b", "c"), (0,))
WHOLE = Relation(2, "public", "u", "f", ("a", "b"), (0, 1))
TOLD = Relation(3, "kryonix", "told", "d", ("id", "content"), (0,))
IDENTITY = Relation(4, "kryonix", "identity", "d", ("relation", "was"), (0,))
RELATIONS = {each.oid: each for each in (KEYED, WHOLE, TOLD, IDENTITY)}
VALUES = (None, b"1", b"2")
KEYS = (b"k", b"l", b"m", b"n")


def described(relation: Relation) -> bytes:
    """The message about a table."""
    out = pack(">cI", b"R", relation.oid)
    out += f"{relation.schema}\0{relation.name}\0{relation.identity}".encode()
    out += pack(">H", len(relation.columns))
    for place, column in enumerate(relation.columns):
        out += pack(">B", place in relation.keys) + column.encode() + b"\0" + pack(">Ii", 25, -1)
    return out


def moved(relation: Relation, old: Row, new: Row) -> bytes:
    """An update that tells the row of before too."""
    gone = encoding.delete(relation, old)
    return b"U" + gone[1:] + encoding.insert(relation.oid, new)[5:]


def said(content: bytes) -> bytes:
    """A message of ours."""
    return b"M\1" + bytes(8) + b"kryonix\0" + pack(">I", len(content)) + content


def beat(number: int) -> bytes:
    """The sequences of a moment."""
    return said(json.dumps(
        {"kind": "beat", "sequences": [["s", "q", number]], "publication": 1, "before": 1}
    ).encode())  # fmt: skip


def transaction(lsn: int, *messages: bytes) -> list[bytes]:
    """One transaction at a place."""
    moment = NOON + timedelta(seconds=lsn)
    return [encoding.begin(lsn, moment), *messages, encoding.commit(lsn, lsn + 1, moment)]


def folded(
    messages: Iterable[bytes], after: int = 0, most_keys: int = 100, **more: int
) -> tuple[list[bytes], Fold]:
    """What a stretch of one segment comes to."""
    body = b"".join(map(encoding.framed, messages))
    header = LogHeader(ChainId("c"), 1, 0, 1000, None, None, None, 0, 0)
    stretch = Stretch("7/8", after, 1000, NOON, [(header, [body])])
    fold = Fold(stretch, most_keys=most_keys, **more)
    return list(pgoutput.frames(fold.pieces())), fold


class Database:
    """Two tables, to which each change is made at once, and must fit."""

    def __init__(self, keyed: dict[bytes, Row], whole: Iterable[Row]) -> None:
        self.keyed = dict(keyed)
        self.whole = Counter(whole)
        self.relations: dict[int, Relation] = {}
        self.at_ddl: list[tuple[bytes, object]] = []
        self.inside = False

    def state(self) -> tuple[dict[bytes, Row], Counter[Row]]:
        """Everything that is there."""
        return dict(self.keyed), +self.whole

    def replay(self, messages: Iterable[bytes]) -> Database:
        """Make every change."""
        for message in messages:
            self._take(message)
        assert not self.inside
        return self

    def _take(self, message: bytes) -> None:
        kind = message[:1]
        assert (kind == b"B") != self.inside
        if kind in b"BC":
            self.inside = kind == b"B"
        elif kind == b"R":
            relation = pgoutput.relation(message)
            self.relations[relation.oid] = relation
        elif kind == b"T":
            for oid in pgoutput.truncated(message):
                (self.keyed if self.relations[oid] == KEYED else self.whole).clear()
        elif kind in b"IUD":
            self._change(kind, message)

    def _change(self, kind: bytes, message: bytes) -> None:
        read = {b"I": pgoutput.insert, b"U": pgoutput.update, b"D": pgoutput.delete}[kind]
        change = read(message)
        relation = self.relations[change.oid]
        if relation == TOLD:
            if kind == b"I":
                self.at_ddl.append((message, self.state()))
        elif relation == KEYED:
            self._keyed(change)
        else:
            assert relation == WHOLE
            self._whole(change)

    def _keyed(self, change: Change) -> None:
        before: Row | None = None
        if change.old is not None or (change.new and change.new[0] in self.keyed):
            key = (change.old or change.new or ())[0]
            before = self.keyed.pop(cast(bytes, key))
        if change.new is not None:
            new = tuple(
                (before or ())[at] if value is UNCHANGED else value
                for at, value in enumerate(change.new)
            )
            assert new[0] not in self.keyed
            self.keyed[cast(bytes, new[0])] = new

    def _whole(self, change: Change) -> None:
        if change.old is not None:
            assert self.whole[change.old] > 0
            self.whole[change.old] -= 1
        if change.new is not None:
            self.whole[change.new] += 1


class Writer:
    """Makes changes to a database, and writes them as a server's log has them."""

    def __init__(self, database: Database, data: DataObject) -> None:
        self.database = database
        self.draw = data.draw
        self.messages: list[bytes] = []
        self.out: list[bytes] = []
        self.lsn = 10

    def write(self, steps: list[str]) -> list[bytes]:
        """Transactions of one to three steps each."""
        while steps:
            count = self.draw(st.integers(1, 3))
            self.messages = []
            for step in steps[:count]:
                getattr(self, step)()
            del steps[:count]
            self.lsn += 10
            head = [described(each) for each in (KEYED, WHOLE, TOLD)]
            yielded = transaction(self.lsn, *head, *self.messages)
            self.database.replay(yielded)
            self.out.extend(yielded)
        return self.out

    def _state(self) -> Database:
        """The database as the transaction sees it."""
        seen = Database(self.database.keyed, self.database.whole.elements())
        seen.relations = dict(RELATIONS)
        seen.inside = True
        for message in self.messages:
            seen._take(message)
        return seen

    def _row(self, key: bytes) -> Row:
        return (key, self.draw(st.sampled_from(VALUES)), self.draw(st.sampled_from(VALUES)))

    def insert(self) -> None:
        free = [key for key in KEYS if key not in self._state().keyed]
        if free:
            row = self._row(self.draw(st.sampled_from(free)))
            self.messages.append(encoding.insert(1, row))

    def delete(self) -> None:
        there = sorted(self._state().keyed)
        if there:
            old: Row = (self.draw(st.sampled_from(there)), None, None)
            self.messages.append(encoding.delete(KEYED, old))

    def _some(self) -> tuple[bytes, Row, list[bytes]] | None:
        keyed = self._state().keyed
        if not keyed:
            return None
        key = self.draw(st.sampled_from(sorted(keyed)))
        same = self.draw(st.tuples(st.booleans(), st.booleans()))
        row = self._row(key)
        new = (key, *(UNCHANGED if s else v for s, v in zip(same, row[1:], strict=True)))
        return key, new, [each for each in KEYS if each not in keyed]

    def update(self) -> None:
        found = self._some()
        if found:
            self.messages.append(encoding.update(1, found[1]))

    def move(self) -> None:
        found = self._some()
        if found and found[2]:
            key, new, free = found
            to = self.draw(st.sampled_from(free))
            self.messages.append(moved(KEYED, (key, None, None), (to, *new[1:])))

    def truncate(self) -> None:
        self.messages.append(encoding.truncate(self.draw(st.sampled_from([[1], [2], [1, 2]]))))

    def loose(self) -> None:
        row: Row = (self.draw(st.sampled_from(VALUES)), self.draw(st.sampled_from(VALUES)))
        self.messages.append(encoding.insert(2, row))

    def lose(self) -> None:
        there = sorted((+self._state().whole).elements(), key=repr)
        if there:
            self.messages.append(encoding.delete(WHOLE, self.draw(st.sampled_from(there))))

    def ddl(self) -> None:
        number = b"%d" % self.draw(st.integers(0, 9))
        self.messages.append(encoding.insert(3, (number, b"{}")))
        self.messages.append(encoding.delete(TOLD, (number, None)))


STEPS = st.sampled_from([
    "insert", "insert", "delete", "update", "update", "move", "move", "truncate", "loose", "loose",
    "lose", "ddl",
])  # fmt: skip
BEFORE: dict[bytes, Row] = {b"k": (b"k", b"1", b"1"), b"l": (b"l", None, b"2")}
LOOSE: list[Row] = [(b"1", None), (b"1", None), (None, b"2")]


def _start() -> Database:
    return Database(BEFORE, LOOSE)


def _written(steps: list[str], data: DataObject) -> tuple[list[bytes], Database]:
    database = _start()
    return Writer(database, data).write(list(steps)), database


@settings(max_examples=150)
@given(steps=st.lists(STEPS, max_size=24), most=st.integers(1, 6), data=st.data())
def test_a_fold_comes_to_what_its_changes_come_to(
    steps: list[str], most: int, data: DataObject
) -> None:
    log, truth = _written(steps, data)

    for bounds in ({"most_keys": 100}, {"most_bytes": 20 * most}):
        out, fold = folded(log, **bounds)
        again = _start().replay(out)

        assert again.state() == truth.state()
        assert again.at_ddl == truth.at_ddl  # each finds the tables as they were then
        changes = [message for message in out if message[:1] in (b"I", b"U", b"D", b"T")]
        assert len(changes) == fold.changes


@settings(max_examples=100)
@given(steps=st.lists(STEPS, max_size=24), cut=st.integers(0, 24), data=st.data())
def test_a_fold_is_folded_again_with_what_came_after_it(
    steps: list[str], cut: int, data: DataObject
) -> None:
    log, truth = _written(steps, data)
    begins = [at for at, message in enumerate(log) if message[:1] == b"B"] or [0]
    place = begins[cut % len(begins)]
    first, rest = log[:place], log[place:]

    earlier, _ = folded(first)
    end = max([pgoutput.begin(each).lsn + 1 for each in first if each[:1] == b"B"], default=1)
    earlier[0] = encoding.begin(end - 1, NOON)
    out, _ = folded([*earlier, *rest])

    again = _start().replay(out)
    assert again.state() == truth.state()
    assert again.at_ddl == truth.at_ddl
    assert len([message for message in out if message[:1] == b"B"]) == 1


# ---------------------------------------------------------------------- one by one


def _kinds(messages: Iterable[bytes]) -> str:
    return b"".join(message[:1] for message in messages).decode()


def test_however_often_a_row_changed_it_is_there_once() -> None:
    row: Row = (b"k", b"1", None)
    log = [
        *transaction(10, described(KEYED), encoding.insert(1, row)),
        *(m for lsn in range(20, 90) for m in transaction(lsn, encoding.update(1, row))),
        *transaction(90, encoding.insert(1, (b"l", b"2", None))),
    ]
    out, fold = folded(log)

    assert _kinds(out) == "BRIIC"
    assert fold.changes == 2
    assert pgoutput.begin(out[0]) == (999, pgoutput.micros_of(NOON))


def test_what_was_in_the_rows_already_is_left_out_and_nothing_comes_twice() -> None:
    first, second = encoding.insert(1, (b"k", None, None)), encoding.insert(1, (b"l", None, None))
    log = [*transaction(10, described(KEYED), first), *transaction(20, second)]
    out, _ = folded([*log, *log], after=11)

    assert [message for message in out if message[:1] == b"I"] == [second]
    assert described(KEYED) in out  # it was told by then


def test_only_the_newest_beat_goes_along() -> None:
    log = [
        *transaction(10, beat(1)),
        *transaction(20, beat(2), b"M\1" + bytes(8) + b"x\0" + bytes(4)),
    ]
    out, fold = folded(log)

    assert out[1:-1] == [beat(2)]
    assert fold.changes == 0


def test_a_change_of_the_schema_finds_what_came_before_it() -> None:
    ddl = encoding.insert(3, (b"1", b"{}"))
    log = transaction(
        10, described(KEYED), described(TOLD), described(IDENTITY),
        encoding.insert(1, (b"k", None, None)), encoding.insert(4, (b"1", b"d")),
        ddl, encoding.delete(TOLD, (b"1", None)),
        described(KEYED._replace(name="renamed")), encoding.insert(1, (b"l", None, None)),
    )  # fmt: skip
    out, _ = folded(log)

    assert _kinds(out) == "BRIRIRIC"
    assert out[4] == ddl
    assert pgoutput.relation(out[5]).name == "renamed"


def test_a_row_that_moves_with_values_nobody_has_told_passes_by_itself() -> None:
    move = moved(KEYED, (b"k", None, None), (b"m", b"2", UNCHANGED))
    other = moved(KEYED, (b"l", None, None), (b"k", b"2", b"3"))
    log = transaction(
        10, described(KEYED), encoding.update(1, (b"k", b"9", UNCHANGED)), move, other
    )
    out, _ = folded(log)

    assert _kinds(out) == "BRUUDIC"
    assert out[3] == move


def test_tables_that_were_emptied_together_are_so_again() -> None:
    log = transaction(
        10, described(KEYED), described(WHOLE), encoding.truncate([1, 2]),
        moved(KEYED, (b"k", None, None), (b"l", None, None)),
    )  # fmt: skip
    with pytest.raises(ValidationFailed, match="a truncation had removed"):
        folded(log)

    out, _ = folded([*log[:-2], *log[-1:]])
    assert out[3] == encoding.truncate([1, 2])


def test_a_long_key_that_did_not_change_is_told_in_full() -> None:
    log = transaction(
        10, described(KEYED), moved(KEYED, (b"k", None, None), (UNCHANGED, b"1", UNCHANGED))
    )
    out, _ = folded(log)

    assert out[2] == encoding.update(1, (b"k", b"1", UNCHANGED))


@pytest.mark.parametrize(
    ("messages", "error", "what"),
    [
        ([b"Z"], Damaged, "unknown kind 90"),
        ([encoding.insert(9, (b"x",))], Damaged, "changes table 9 before"),
        ([said(b"{}")], Damaged, "wrong form"),
        ([described(KEYED), encoding.update(1, (b"k",))], ValidationFailed, "a row of 1 columns"),
        ([described(KEYED), moved(KEYED, (b"k",), (b"l",))], ValidationFailed, "of 1 columns"),
        ([described(KEYED), moved(KEYED, (b"k",), (b"l", None, None))], ValidationFailed,
         "of 1 columns"),
    ],
)  # fmt: skip
def test_a_log_that_makes_no_sense_is_refused(
    messages: list[bytes], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        folded(transaction(10, *messages))


def test_what_cannot_be_repeated_cannot_be_folded() -> None:
    content = {
        "kind": "ddl", "tag": "DO", "query": "", "search_path": "", "role": "", "missing": [],
        "opaque": "it ran inside a function", "settings": {},
    }  # fmt: skip
    message = said(json.dumps(content).encode())

    folded(transaction(10, message), after=11)
    with pytest.raises(LogBroken, match="cannot be repeated"):
        folded(transaction(10, message))


def test_long_rows_are_written_before_they_fill_the_memory() -> None:
    def rows() -> Iterator[bytes]:
        for number in range(20):
            yield encoding.insert(1, (b"%d" % number, b"x" * 1000, None))
            yield encoding.delete(KEYED, (b"%d" % number, None, None))

    log = transaction(10, described(KEYED), *rows())
    assert _kinds(folded(log)[0]) == "BC"
    out, fold = folded(log, most_bytes=5000)

    assert 0 < fold.changes < 40
    assert Database({}, []).replay(out).keyed == {}
