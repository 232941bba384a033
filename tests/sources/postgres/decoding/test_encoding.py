"""What is written as the server writes it is read as what it was."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.sources.postgres.decoding import encoding, pgoutput
from kryonix_backup.sources.postgres.decoding.pgoutput import (
    EPOCH,
    UNCHANGED,
    Begin,
    Change,
    Relation,
    Row,
)
from kryonix_backup.testing.clock import NOON

KEYED = Relation(7, "public", "t", "d", ("a", "b", "c"), (0, 2))
WHOLE = Relation(8, "public", "u", "f", ("a", "b"), (0, 1))

oids = st.integers(0, 2**32 - 1)
known = st.none() | st.binary(max_size=20)
rows = st.lists(known, max_size=5).map(tuple)
partial = st.lists(known | st.just(UNCHANGED), max_size=5).map(tuple)
moments = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001
    lambda naive: naive.replace(tzinfo=EPOCH.tzinfo)
)


@given(oid=oids, row=partial)
def test_a_row_that_came_or_changed_is_read_as_it_was(oid: int, row: Row) -> None:
    assert pgoutput.insert(encoding.insert(oid, row)) == Change(oid, None, row)
    assert pgoutput.update(encoding.update(oid, row)) == Change(oid, None, row)


@given(row=rows)
def test_a_row_that_went_is_read_as_it_was(row: Row) -> None:
    for relation in (KEYED, WHOLE):
        assert pgoutput.delete(encoding.delete(relation, row)) == Change(relation.oid, row, None)
    assert encoding.delete(KEYED, row)[5:6] == b"K"
    assert encoding.delete(WHOLE, row)[5:6] == b"O"


@given(lsn=st.integers(0, 2**64 - 2), moment=moments)
def test_a_transaction_is_where_and_when_it_was(lsn: int, moment: datetime) -> None:
    assert pgoutput.begin(encoding.begin(lsn, moment)) == Begin(lsn, pgoutput.micros_of(moment))
    assert len(encoding.commit(lsn, lsn + 1, moment)) == 26


@given(emptied=st.lists(oids, max_size=5))
def test_tables_that_were_emptied_are_named(emptied: list[int]) -> None:
    assert pgoutput.truncated(encoding.truncate(emptied)) == emptied


def test_of_an_identity_only_the_key_is_told() -> None:
    assert encoding.identity(KEYED, (b"1", None)) == (b"1", None, None)
    assert encoding.identity(KEYED, (b"1", b"3")) == (b"1", None, b"3")


def test_messages_are_framed_as_a_segment_holds_them() -> None:
    messages = [encoding.insert(7, (b"x",)), encoding.commit(1, 2, NOON + timedelta(seconds=1))]

    assert list(pgoutput.frames([b"".join(map(encoding.framed, messages))])) == messages
