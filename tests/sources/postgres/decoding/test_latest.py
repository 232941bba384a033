"""Changes that are kept as the log has them come to what they come to in a `TableNet`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from kryonix_backup.errors import Damaged, ValidationFailed
from kryonix_backup.sources.postgres.decoding import pgoutput
from kryonix_backup.sources.postgres.decoding.latest import Latest
from kryonix_backup.sources.postgres.decoding.net import Key, State, TableNet
from kryonix_backup.sources.postgres.decoding.pgoutput import UNCHANGED, Relation, Row
from kryonix_backup.sources.postgres.restoring.applying import bulk_of
from tests.sources.postgres.decoding.test_net import (
    KEYED,
    STEPS,
    Keyed,
    Table,
    applied,
    steps,
    tables,
)


class Plain(TableNet):
    """Takes rows as a `TableNet` does, and gives them to a `Latest` as the log has them."""

    def __init__(self, relation: Relation) -> None:
        super().__init__(relation)
        self.latest = Latest(relation)

    def insert(self, new: Row) -> None:
        self.latest.insert(pgoutput.encoded_row(new))

    def delete(self, old: Row) -> None:
        self.latest.delete(pgoutput.encoded_row(old))

    def update(self, old: Row | None, new: Row) -> None:
        if old is None:
            self.latest.update(pgoutput.encoded_row(new))
        else:
            self.latest.change(old, new)

    def truncate(self) -> None:
        self.latest.truncate()

    def folded(self) -> TableNet:
        """What it came to, as a `TableNet` says it."""
        net, latest = TableNet(self.relation), self.latest
        net.truncated = latest.net.truncated
        net.keys.update(latest.net.keys)
        net.rows.update(latest.net.rows)
        for key, row in latest.rows.items():
            known: Key = pgoutput.row(latest.key_row(key))  # type: ignore[assignment]
            assert known not in net.keys
            net.keys[known] = State(
                key not in latest.fresh, None if row is None else pgoutput.row(row)
            )
        for row, count in latest.came.items():
            net.rows[pgoutput.row(row)] += count
        assert latest.is_changed or not (net.truncated or net.keys or +net.rows)
        return net


def _plain(net: TableNet) -> tuple[object, ...]:
    rows = {row: count for row, count in net.rows.items() if count}
    return net.truncated, net.keys, rows


@given(before=tables(), what=st.lists(steps, max_size=25), data=st.data())
def test_a_table_with_a_key_comes_to_the_same(
    before: Table, what: list[str], data: DataObject
) -> None:
    made = Keyed(before, data)
    made.net = plain = Plain(KEYED)
    for step in what:
        STEPS[step](made)

    assert applied(plain.folded(), before) == made.table


RELATIONS = (
    Relation(3, "public", "single", "d", ("a", "b"), (0,)),
    Relation(4, "public", "last", "i", ("b", "a"), (1,)),
    Relation(5, "public", "both", "d", ("a", "b"), (0, 1)),
    Relation(6, "public", "whole", "f", ("a", "b"), (0, 1)),
    Relation(7, "public", "nothing", "n", ("a", "b"), ()),
)
some = st.tuples(*[st.sampled_from((b"1", b"u", b"", None))] * 2)
told = st.tuples(*[st.sampled_from((b"1", b"u", b"", None, UNCHANGED))] * 2)
Step = tuple[str, Row, Row]
anything = st.lists(st.tuples(st.sampled_from("iiuuUddDT"), some, told), max_size=12)


def _take(net: TableNet, step: Step) -> None:
    kind, old, new = step
    if kind == "T":
        net.truncate()
    elif kind == "d":
        net.delete(old)
    elif kind == "D":
        net.delete(new)
    elif kind == "i":
        net.insert(new)
    else:
        net.update(old if kind == "U" else None, new)


def _all(net: TableNet, what: list[Step]) -> str:
    try:
        for step in what:
            _take(net, step)
    except ValidationFailed as error:
        return error.message
    return ""


@given(st.sampled_from(RELATIONS), anything)
def test_whatever_comes_is_taken_or_refused_as_there(relation: Relation, what: list[Step]) -> None:
    net, plain = TableNet(relation), Plain(relation)
    refused = _all(net, what)

    assert _all(plain, what) == refused
    if not refused:
        assert _plain(plain.folded()) == _plain(net)


@pytest.mark.parametrize("relation", RELATIONS)
def test_what_came_and_went_takes_no_memory(relation: Relation) -> None:
    latest = Latest(relation)
    row = pgoutput.encoded_row((b"1", b"2"))
    latest.insert(row)
    assert len(latest) == 1
    if relation.identity != "n":
        latest.delete(row)
        assert (len(latest), latest.is_changed) == (0, False)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("row", [b"", b"\0", b"\0\2t\0\0\0\5ab", b"\0\1t\0\0\0\1a", b"\0\2nx"])
@pytest.mark.parametrize("take", [Latest.insert, Latest.update, Latest.delete])
def test_what_is_no_row_is_told_before_it_is_applied(
    relation: Relation, row: bytes, take: Callable[[Latest, bytes], None]
) -> None:
    latest = Latest(relation)

    def all_of_it() -> None:
        take(latest, row)
        bulk_of(latest)

    with pytest.raises((Damaged, ValidationFailed)):
        all_of_it()
