"""What a stretch of the log comes to is what its changes come to when made one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from kryonix_backup.errors import ValidationFailed
from kryonix_backup.sources.postgres.decoding import pgoutput
from kryonix_backup.sources.postgres.decoding.net import Key, TableNet
from kryonix_backup.sources.postgres.decoding.pgoutput import UNCHANGED, Change, Relation, Row
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres.log import sent

KEYED = Relation(1, "public", "t", "d", ("a", "k", "b", "c"), (0, 1))
"""Its key is a long text and something short; the other two may be long as well."""
WHOLE = Relation(2, "public", "u", "f", ("a", "b"), (0, 1))
VALUES = (None, b"", b"1", b"2")
KEYS: tuple[Key, ...] = tuple((a, k) for a in (b"1", b"2", b"3") for k in (b"x", b"y"))
Table = dict[Key, Row]

keys = st.sampled_from(KEYS)
values = st.sampled_from(VALUES)


def _key(row: Row) -> Key:
    return cast(Key, row[:2])


def _identity(row: Row) -> Row:
    """A row before, as the server writes it where only its key is wanted."""
    return (*row[:2], None, None)


class Keyed:
    """A table with a key, changed at once, and the same changes as the log has them, folded."""

    def __init__(self, before: Table, data: DataObject) -> None:
        self.table = dict(before)
        self.net = TableNet(KEYED)
        self._draw = data.draw

    def _some_key(self) -> Key:
        return self._draw(st.sampled_from(sorted(self.table)))

    def insert(self) -> None:
        free = [key for key in KEYS if key not in self.table]
        if free:
            key = self._draw(st.sampled_from(free))
            self.table[key] = row = (*key, self._draw(values), self._draw(values))
            self.net.insert(row)

    def delete(self) -> None:
        if self.table:
            self.net.delete(_identity(self.table.pop(self._some_key())))

    def update(self) -> None:
        """The key may change, its text may be long, and long values may not be touched."""
        if not self.table:
            return
        old = self.table.pop(self._some_key())
        free = [key for key in KEYS if key not in self.table]
        key = self._draw(st.one_of(st.just(_key(old)), st.sampled_from(free)))
        row: Row = (*key, self._draw(values), self._draw(values))
        same = self._draw(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()))
        told = [
            old[at] if is_same else value
            for at, (value, is_same) in enumerate(zip(row, same, strict=True))
        ]
        if _key(tuple(told)) in self.table:
            told[:2] = key
            same = (False, False, *same[2:])
        self.table[_key(tuple(told))] = tuple(told)
        new = tuple(
            UNCHANGED if is_same else value for value, is_same in zip(told, same, strict=True)
        )
        # The key of before comes where it changed, and where a part of it is not written out.
        with_key = _key(tuple(told)) != _key(old) or same[0] or same[1]
        self.net.update(_identity(old) if with_key else None, new)

    def swap(self) -> None:
        """Two rows exchange their keys by way of a third."""
        free = [key for key in KEYS if key not in self.table]
        if len(self.table) < 2 or not free:
            return
        one, other = self._draw(st.lists(st.sampled_from(sorted(self.table)), min_size=2,
                                         max_size=2, unique=True))  # fmt: skip
        for start, end in ((one, free[0]), (other, one), (free[0], other)):
            old = self.table.pop(start)
            self.table[end] = (*end, *old[2:])
            self.net.update(_identity(old), (*end, UNCHANGED, UNCHANGED))

    def truncate(self) -> None:
        self.table.clear()
        self.net.truncate()


@st.composite
def tables(draw: st.DrawFn) -> Table:
    return {
        key: (*key, draw(values), draw(values))
        for key in draw(st.lists(keys, unique=True, max_size=5))
    }


def filled(row: Row, origin: Row) -> Row:
    return tuple(
        old if value is UNCHANGED else value for value, old in zip(row, origin, strict=True)
    )


def applied(net: TableNet, before: Table) -> Table:
    """Delete what was there, write what is there: as a target does, and as strictly."""
    table = {} if net.truncated else dict(before)
    whole = {
        key: filled(state.row, table[state.origin]) if state.origin else state.row
        for key, state in net.keys.items()
        if state.row is not None
    }
    for key, state in net.keys.items():
        assert state.existed == (key in table)
        table.pop(key, None)
    for key, row in whole.items():
        assert key == _key(row)
        assert UNCHANGED not in row
        assert key not in table
        table[key] = row
    return table


STEPS: dict[str, Callable[[Keyed], None]] = {
    "insert": Keyed.insert, "delete": Keyed.delete, "update": Keyed.update, "swap": Keyed.swap,
    "truncate": Keyed.truncate,
}  # fmt: skip
steps = st.sampled_from(["insert", "update", "update", "delete", "swap", "truncate"])


@given(before=tables(), what=st.lists(steps, max_size=25), data=st.data())
def test_a_table_with_a_key_comes_to_the_same(
    before: Table, what: list[str], data: DataObject
) -> None:
    made = Keyed(before, data)
    for step in what:
        STEPS[step](made)

    assert applied(made.net, before) == made.table
    assert made.net.by_key


@given(
    before=tables(),
    what=st.lists(steps, min_size=1, max_size=20),
    cuts=st.sets(st.integers(0, 19)),
    data=st.data(),
)
def test_it_may_be_applied_at_any_moment(
    before: Table, what: list[str], cuts: set[int], data: DataObject
) -> None:
    made = Keyed(before, data)
    reached = before
    for at, step in enumerate(what):
        STEPS[step](made)
        if at in cuts:
            reached, made.net = applied(made.net, reached), TableNet(KEYED)

    assert applied(made.net, reached) == made.table


rows = st.tuples(values, values)


@given(before=st.lists(rows, max_size=8), what=st.data())
def test_rows_without_a_key_are_counted(before: list[Row], what: DataObject) -> None:
    draw = what.draw
    table, net = list(before), TableNet(WHOLE)
    for step in draw(st.lists(st.sampled_from("iiuudT"), max_size=20)):
        if step == "T":
            table.clear()
            net.truncate()
        elif step == "i":
            table.append(draw(rows))
            net.insert(table[-1])
        elif table:
            old = table.pop(draw(st.integers(0, len(table) - 1)))
            if step == "d":
                net.delete(old)
                continue
            same, new = draw(st.tuples(st.booleans(), st.booleans())), draw(rows)
            told = tuple(
                UNCHANGED if each else value for each, value in zip(same, new, strict=True)
            )
            table.append(filled(told, old))
            net.update(old, told)

    there = Counter([] if net.truncated else before)
    gone = Counter({row: -count for row, count in net.rows.items() if count < 0})
    assert gone <= there
    assert not net.by_key
    there.update(net.rows)
    assert +there == Counter(table)
    assert len(net) == len([row for row, count in net.rows.items() if count])


# ---------------------------------------------------------------------- what cannot be


def _keyed(*changes: Callable[[TableNet], None]) -> TableNet:
    net = TableNet(KEYED)
    for change in changes:
        change(net)
    return net


ROW: Row = (b"1", b"x", None, b"1")
IDENTITY: Row = (b"1", b"x", None, None)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ([lambda net: net.insert(ROW)] * 2, "a second row"),
        ([lambda net: net.delete(IDENTITY)] * 2, "a row that is not there"),
        ([TableNet.truncate, lambda net: net.delete(IDENTITY)], "that a truncation had removed"),
        ([TableNet.truncate, lambda net: net.update(None, ROW)], "that a truncation had removed"),
        ([lambda net: net.update((b"2", b"x", None, None), ROW), lambda net: net.insert(ROW)],
         "a second row"),
        ([lambda net: net.insert((b"1", b"x", UNCHANGED, None))], "without all of its values"),
        ([lambda net: net.update(None, (UNCHANGED, b"x", None, None))], "without its key"),
        ([lambda net: net.delete((UNCHANGED, b"x", None, None))], "without its key"),
        ([lambda net: net.insert((b"1", b"x"))], "a row of 2 columns instead of 4"),
        ([lambda net: net.delete((*ROW, None))], "a row of 5 columns instead of 4"),
        ([lambda net: net.update((b"1",), ROW)], "a row of 1 columns"),
        ([lambda net: net.update(None, ())], "a row of 0 columns"),
    ],
)  # fmt: skip
def test_changes_that_contradict_each_other_are_told(
    changes: list[Callable[[TableNet], None]], what: str
) -> None:
    with pytest.raises(ValidationFailed, match=f"{what}.* in table public.t"):
        _keyed(*changes)


@pytest.mark.parametrize("identity", ["d", "n"])
def test_without_identity_rows_can_only_come(identity: str) -> None:
    net = TableNet(WHOLE._replace(identity=identity, keys=()))
    net.insert((b"1", None))

    assert net.rows == {(b"1", None): 1}
    with pytest.raises(ValidationFailed, match=r"without identity in table public\.u"):
        net.update(None, (b"2", None))


def test_what_came_and_went_takes_no_memory() -> None:
    net, whole = TableNet(KEYED), TableNet(WHOLE)
    net.insert(ROW)
    net.delete(IDENTITY)
    whole.insert((b"1", None))
    whole.delete((b"1", None))

    assert len(net) == len(whole) == 0


# ---------------------------------------------------------------------- a server's own


@pytest.mark.service
@pytest.mark.parametrize("identity", ["default", "using index i", "full"])
def test_a_key_too_long_for_its_row_is_found_again(postgres: PostgresServer, identity: str) -> None:
    name = new_database(postgres, "net")
    with postgres.connect(name) as connection:
        for statement in (
            "create table t (k text primary key, n int, more text)",
            "alter table t alter k set storage external, alter more set storage external",
            "alter table t alter n set not null",
            "create unique index i on t (n, k)",
            f"alter table t replica identity {identity}",
            "create publication p for all tables",
            "insert into t values (repeat('k', 2500), 1, repeat('m', 5000))",
            f"select pg_create_logical_replication_slot('{name}', 'pgoutput')",
            "update t set more = 'short'",
            "update t set n = 2, more = repeat('n', 5000)",
            "update t set k = repeat('l', 2500)",
            "update t set n = 3",
        ):
            connection.execute(statement)
        messages = sent(connection, name)

    (relation,) = {pgoutput.relation(each) for each in messages if each[:1] == b"R"}
    changes: list[Change] = [pgoutput.update(each) for each in messages if each[:1] == b"U"]
    net = TableNet(relation)
    for change in changes:
        assert change.new is not None
        net.update(change.old, change.new)

    assert any(UNCHANGED in (change.new or ())[:1] for change in changes)
    before: Row = (b"k" * 2500, b"1", b"m" * 5000)
    after: Row = (b"l" * 2500, b"3", b"n" * 5000)
    if identity == "full":
        assert net.rows == {before: -1, after: 1}
    else:
        gone, there = [tuple(row[at] for at in relation.keys) for row in (before, after)]
        states = {key: (state.existed, state.row) for key, state in net.keys.items()}
        assert states == {gone: (True, None), there: (False, after)}
