"""Segments are cut between transactions, can be read alone, and hold nothing twice."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta

import pytest

from kryonix_backup.errors import SourceError
from kryonix_backup.model import ChainId, LogHeader
from kryonix_backup.sources.postgres.decoding.framing import Cutter, Diverged
from kryonix_backup.sources.postgres.decoding.times import moment
from tests.sources.postgres.log import frames

TABLE, OTHER, KIND = 500, 501, 500  # a type may have the oid of a table
OPENING = LogHeader(
    ChainId("c"), 0, 100, 100, None, None, None, 0, 0, meta={"publication": 7, "timeline": 1}
)


def _begin(commit: int, time: int = 0) -> bytes:
    return struct.pack(">cQqI", b"B", commit, time, 9)


def _commit(end: int, time: int = 0) -> bytes:
    return struct.pack(">cBQQq", b"C", 0, end - 1, end, time)


def _relation(oid: int = TABLE, name: bytes = b"t", kind: int = 23) -> bytes:
    columns = struct.pack(">H", 1) + b"\1a\0" + struct.pack(">Ii", kind, -1)
    return b"R" + struct.pack(">I", oid) + b"public\0" + name + b"\0d" + columns


def _type(oid: int = KIND) -> bytes:
    return b"Y" + struct.pack(">I", oid) + b"public\0mood\0"


def _row(oid: int = TABLE, text: bytes = b"1") -> bytes:
    return b"I" + struct.pack(">I", oid) + b"N\0\1t" + struct.pack(">I", len(text)) + text


def _said(place: int, content: bytes, prefix: bytes = b"kryonix", flags: int = 1) -> bytes:
    head = struct.pack(">cBQ", b"M", flags, place)
    return head + prefix + b"\0" + struct.pack(">I", len(content)) + content


def _beat(place: int, publication: int = 7) -> bytes:
    return _said(place, json.dumps(
        {"kind": "beat", "before": 1, "sequences": [], "publication": publication}
    ).encode())  # fmt: skip


def _plain(opaque: str) -> bytes:
    return json.dumps(
        {"kind": "ddl", "tag": "CREATE TABLE", "query": "q", "search_path": "", "role": "r",
         "missing": [], "opaque": opaque, "settings": {}}
    ).encode()  # fmt: skip


def _ddl(opaque: str) -> bytes:
    """As anybody can say it."""
    return _said(1, _plain(opaque))


def _told(content: bytes, table: bytes = b"told") -> tuple[bytes, bytes]:
    """As our trigger alone can say it."""
    columns = b"\0\2" + b"".join(
        flag + name + b"\0" + struct.pack(">Ii", oid, -1)
        for flag, name, oid in ((b"\1", b"id", 20), (b"\0", b"content", 25))
    )
    values = b"".join(b"t" + struct.pack(">I", len(each)) + each for each in (b"1", content))
    oid = struct.pack(">I", 77)
    return (
        b"R" + oid + b"kryonix\0" + table + b"\0d" + columns,
        b"I" + oid + b"N" + b"\0\2" + values,
    )


def _fed(cutter: Cutter, *messages: bytes) -> list[bool]:
    return [cutter.add(message) for message in messages]


def _cutter(most: int = 1 << 20) -> Cutter:
    return Cutter(OPENING, OPENING, most)


def test_a_segment_says_what_is_in_it() -> None:
    cutter = _cutter()
    _fed(cutter, _begin(110), _relation(), _row(), _row(), _commit(112, 3_000_000))
    _fed(cutter, _begin(115), _row(), _beat(113), _commit(117, 1_000_000))

    assert not cutter.is_over
    kinds = [frame[:1] for frame in frames(cutter.take())]
    header = cutter.close(1)

    assert kinds == [b"B", b"R", b"I", b"I", b"C", b"B", b"I", b"M", b"C"]
    start = datetime(2000, 1, 1, tzinfo=UTC)
    one, three = start + timedelta(seconds=1), start + timedelta(seconds=3)
    known = one - timedelta(microseconds=1)
    assert header == LogHeader(
        ChainId("c"), 1, 100, 117, one, three, known, 2, 3, "", {"timeline": 1}
    )


def test_the_awaited_beat_ends_a_segment_when_its_transaction_does() -> None:
    cutter = _cutter()
    cutter.awaited = 120
    early = _fed(cutter, _begin(118), _beat(110), _commit(119))
    late = _fed(cutter, _begin(125), _beat(120), _commit(130))
    cutter.take()
    cutter.close(1)

    assert early == [False, False, False]
    assert late == [False, False, True]
    assert cutter.awaited == 0
    assert _fed(cutter, _begin(131), _commit(132)) == [False, False]


def test_every_segment_has_the_tables_and_types_of_its_rows() -> None:
    cutter = _cutter()
    _fed(cutter, _begin(110), _type(), _relation(kind=KIND), _row(), _commit(112))
    first = list(frames(cutter.take()))
    cutter.close(1)
    truncate = b"T" + struct.pack(">IBI", 1, 0, TABLE)
    _fed(cutter, _begin(114), truncate, _row(), _commit(116))

    assert first[1:3] == [_type(), _relation(kind=KIND)]
    assert list(frames(cutter.take()))[1:5] == [
        _type(), _relation(kind=KIND), truncate, _row(),
    ]  # fmt: skip


def test_a_table_that_changes_is_told_again_in_the_same_segment() -> None:
    cutter = _cutter()
    _fed(cutter, _begin(110), _relation(), _row(), _relation(name=b"u"), _row(), _commit(112))

    kinds = [frame[:1] for frame in frames(cutter.take())]
    assert kinds == [b"B", b"R", b"I", b"R", b"I", b"C"]


def test_what_the_last_segment_holds_is_left_out_but_its_tables_are_kept_in_mind() -> None:
    cutter = _cutter()
    _fed(cutter, _begin(90), _relation(), _row(), _said(1, b"{"), _commit(100))
    assert cutter.take() == b""
    _fed(cutter, _begin(101), _row(), _commit(103))

    assert [frame[:1] for frame in frames(cutter.take())] == [b"B", b"R", b"I", b"C"]
    header = cutter.close(1)
    assert (header.commits, header.changes, header.broken) == (1, 1, "")


def test_a_long_transaction_is_given_out_in_parts() -> None:
    cutter = _cutter(most=140)
    _fed(cutter, _begin(110), _relation())
    told = [cutter.add(_row(text=b"x" * 60)) for _ in range(3)]

    assert told == [False, False, True]
    assert (cutter.is_full, cutter.is_over) == (True, False)
    part = cutter.take()
    assert not cutter.is_full
    _fed(cutter, _row(), _commit(112))
    rest = cutter.take()
    assert [frame[:1] for frame in frames(part + rest)] == [b"B", b"R", *[b"I"] * 4, b"C"]
    assert cutter.close(1).changes == 4


def test_many_transactions_make_a_segment_that_is_long_enough() -> None:
    cutter = _cutter(most=200)
    for start in range(110, 150, 4):
        if any(_fed(cutter, _begin(start), _row() if start > 110 else _relation(), _row(),
                    _commit(start + 2))):  # fmt: skip
            break

    assert cutter.is_over
    assert len(cutter.take()) < 300


@pytest.mark.parametrize(
    ("message", "broken"),
    [
        (_ddl("it ran inside a block"), "CREATE TABLE: it ran inside a block"),
        (_beat(110, publication=8), "our publication was dropped or replaced"),
        (_said(110, b"no json"), "a message of ours in the log has the wrong form"),
    ],
)
def test_what_cannot_be_replayed_marks_the_segment(message: bytes, broken: str) -> None:
    cutter = _cutter()
    _fed(cutter, _begin(110), message, _commit(112, 5_000_000))
    _fed(cutter, _begin(114), _ddl("another reason"), _commit(116, 6_000_000))
    cutter.take()
    header = cutter.close(1)

    assert header.broken == broken
    assert header.meta["broken_at"] == "2000-01-01T00:00:05+00:00"
    assert header.meta["broken_to"] == 115
    assert header.meta.get("broken_from") == (None if "publication" in broken else 111)
    assert cutter.replaced == ("publication" in broken)


def test_a_change_of_the_schema_is_believed_to_a_row_that_only_our_trigger_writes() -> None:
    cutter = _cutter()
    relation, row = _told(_plain(""))
    _fed(cutter, _begin(110), relation, row, _commit(112))
    kept = [frame[:1] for frame in frames(cutter.take())]
    header = cutter.close(1)
    assert kept == [b"B", b"R", b"I", b"C"]
    assert (header.broken, header.changes) == ("", 0)

    _fed(cutter, _begin(120), *_told(b"anything", b"identity"), _commit(122))
    cutter.take()
    assert cutter.close(1).broken == ""

    _fed(cutter, _begin(130), *_told(_plain("it ran inside a block")), _commit(132))
    cutter.take()
    assert cutter.close(1).broken == "CREATE TABLE: it ran inside a block"

    _fed(cutter, _begin(140), *_told(b"no json"), _commit(142))
    cutter.take()
    assert "wrong form" in cutter.close(1).broken

    _fed(cutter, _begin(150), _ddl(""), _commit(152))
    cutter.take()
    assert cutter.close(1).broken == "CREATE TABLE: it was not written by our trigger"


def test_messages_of_others_break_nothing() -> None:
    cutter = _cutter()
    outside = _said(105, b"hello", prefix=b"theirs", flags=0)
    inside = _said(106, b"hello", prefix=b"theirs")
    _fed(cutter, outside, _begin(110), inside, _commit(112), outside)

    assert [frame[:1] for frame in frames(cutter.take())] == [b"B", b"M", b"C"]
    assert cutter.close(1).broken == ""


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ((b"?",), "unknown kind"),
        ((_begin(110), _row(OTHER)), "without its columns"),
        ((_begin(110), _commit(99)), "out of order"),
    ],
)
def test_what_makes_no_sense_stops_it(messages: tuple[bytes, ...], match: str) -> None:
    with pytest.raises(SourceError, match=match):
        _fed(_cutter(), *messages)


def _kept(number: int = 3) -> LogHeader:
    """A segment that ended at 200, in the seconds 10 to 20."""
    first, last = moment(10_000_000), moment(20_000_000)
    return OPENING._replace(number=number, start=100, end=200, first=first, last=last)


def test_what_comes_again_has_to_end_with_what_was_kept() -> None:
    cutter = Cutter(OPENING, _kept(), 1 << 20, repeats=True)

    _fed(cutter, _begin(149, 15_000_000), _commit(150, 15_000_000))
    _fed(cutter, _begin(199, 20_000_000), _commit(200, 20_000_000))
    _fed(cutter, _begin(249, 21_000_000), _commit(250, 21_000_000))

    cutter.take()
    assert (cutter.close(1).commits, cutter.close(1).end) == (1, 250)


@pytest.mark.parametrize(
    "messages",
    [
        (_begin(249), _commit(250)),
        (_begin(149), _commit(150), _begin(249), _commit(250)),
        (_begin(199, 30_000_000), _commit(200, 30_000_000)),
        (_begin(199, 9_000_000), _commit(200, 9_000_000)),
        (_begin(199, 15_000_000), _commit(210, 15_000_000)),
    ],
)
def test_a_server_that_has_something_else_at_that_place_was_put_back(
    messages: tuple[bytes, ...],
) -> None:
    with pytest.raises(Diverged):
        _fed(Cutter(OPENING, _kept(), 1 << 20, repeats=True), *messages)


def test_before_the_first_segment_nothing_can_come_again() -> None:
    cutter = Cutter(OPENING, OPENING, 1 << 20, repeats=True)

    assert not any(_fed(cutter, _begin(149), _commit(150)))


def test_a_clock_that_was_set_back_is_told_until_it_has_caught_up() -> None:
    cutter = Cutter(OPENING, OPENING, 1 << 20)
    headers = []
    for end, seconds in ((110, 100), (120, 40), (130, 60), (140, 100), (150, 101)):
        _fed(cutter, _begin(end - 1, seconds * 1_000_000), _beat(end - 1))
        _fed(cutter, _commit(end, seconds * 1_000_000))
        cutter.take()
        headers.append(cutter.close(1))

    twice = [[moment(40_000_000).isoformat(), moment(100_000_000).isoformat()]]
    assert [header.meta.get("twice") for header in headers] == [None, *[twice] * 4]
    restorable = [header.restorable for header in headers]
    assert restorable == [moment(99_999_999), None, None, None, moment(100_999_999)]
    # Whoever goes on later knows of it too.
    again = Cutter(OPENING, headers[1], 1 << 20)
    _fed(again, _begin(129, 60_000_000), _commit(130, 60_000_000))
    again.take()
    assert again.close(1).meta["twice"] == twice
