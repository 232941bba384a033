"""Every message gives what is in it; bytes that are none give the project's own error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.errors import Damaged
from kryonix_backup.sources.postgres.decoding import pgoutput
from kryonix_backup.sources.postgres.decoding.pgoutput import (
    UNCHANGED,
    Begin,
    Change,
    Relation,
    Row,
)
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres.log import sent

OID = 70_000


def _u32(number: int) -> bytes:
    return struct.pack(">I", number)


def _text(value: bytes) -> bytes:
    return b"t" + _u32(len(value)) + value


def _values(*values: bytes) -> bytes:
    return struct.pack(">H", len(values)) + b"".join(values)


def _relation(schema: bytes, name: bytes, identity: bytes, *columns: tuple[int, bytes]) -> bytes:
    told = [struct.pack(">B", flags) + column + b"\0" + struct.pack(">Ii", 23, -1)
            for flags, column in columns]  # fmt: skip
    return b"R" + _u32(OID) + schema + b"\0" + name + b"\0" + identity + _values(*told)


def _said(prefix: bytes, content: bytes) -> bytes:
    return struct.pack(">cBQ", b"M", 1, 5) + prefix + b"\0" + _u32(len(content)) + content


HEAD = _u32(OID)
ONE = _values(_text(b"1"), b"n")
BEGIN = struct.pack(">cQqI", b"B", 0x1_0000_0002, 86_400_000_001, 9)
RELATION = _relation(b"public", b"t", b"d", (1, b"a"), (0, b"b"))
INSERT = b"I" + HEAD + b"N" + _values(_text(b"1"), b"n", _text(b""))
UPDATE = b"U" + HEAD + b"N" + _values(_text(b"1"), b"u")
UPDATE_KEY = b"U" + HEAD + b"K" + ONE + b"N" + _values(_text(b"2"), b"u")
UPDATE_FULL = b"U" + HEAD + b"O" + ONE + b"N" + _values(_text(b"2"), _text(b"x"))
DELETE_KEY = b"D" + HEAD + b"K" + ONE
DELETE_FULL = b"D" + HEAD + b"O" + _values(b"n", _text(b"\xff\n\t\\"))
TRUNCATE = b"T" + struct.pack(">IBII", 2, 3, OID, 4_294_967_295)
MESSAGE = _said(b"kryonix", b'{"a": 1}')

Decoder = Callable[[bytes], object]
DECODERS: dict[str, Decoder] = {
    "B": pgoutput.begin, "R": pgoutput.relation, "I": pgoutput.insert, "U": pgoutput.update,
    "D": pgoutput.delete, "T": pgoutput.truncated, "M": pgoutput.logical,
}  # fmt: skip
MESSAGES = (BEGIN, RELATION, INSERT, UPDATE, UPDATE_KEY, UPDATE_FULL, DELETE_KEY, DELETE_FULL,
            TRUNCATE, MESSAGE)  # fmt: skip


def _decoded(message: bytes) -> object:
    return DECODERS[chr(message[0])](message)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (BEGIN, Begin(0x1_0000_0002, 86_400_000_001)),
        (RELATION, Relation(OID, "public", "t", "d", ("a", "b"), (0,))),
        (INSERT, Change(OID, None, (b"1", None, b""))),
        (UPDATE, Change(OID, None, (b"1", UNCHANGED))),
        (UPDATE_KEY, Change(OID, (b"1", None), (b"2", UNCHANGED))),
        (UPDATE_FULL, Change(OID, (b"1", None), (b"2", b"x"))),
        (DELETE_KEY, Change(OID, (b"1", None), None)),
        (DELETE_FULL, Change(OID, (None, b"\xff\n\t\\"), None)),
        (TRUNCATE, [OID, 4_294_967_295]),
        (MESSAGE, ("kryonix", b'{"a": 1}')),
        (_said(b"", b""), ("", b"")),
        (b"I" + HEAD + b"N" + _values(), Change(OID, None, ())),
        (_relation(b"", "größe".encode(), b"n"), Relation(OID, "pg_catalog", "größe", "n", (), ())),
        (_relation(b"a.b", b'"', b"f", (1, b"a"), (1, b"")),
         Relation(OID, "a.b", '"', "f", ("a", ""), (0, 1))),
    ],
)  # fmt: skip
def test_a_message_gives_what_is_in_it(message: bytes, expected: object) -> None:
    assert _decoded(message) == expected


def test_a_transaction_has_a_time() -> None:
    time = datetime(2000, 1, 2, 0, 0, 0, 1, tzinfo=UTC)

    assert pgoutput.begin(BEGIN).time == time
    assert pgoutput.micros_of(time) == 86_400_000_001


def test_a_relation_is_shown_with_its_schema() -> None:
    assert pgoutput.relation(RELATION).shown == "public.t"
    assert repr(UNCHANGED) == "UNCHANGED"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: repr(message[:6]))
def test_a_message_of_another_length_is_damaged(message: bytes) -> None:
    decode = DECODERS[chr(message[0])]
    for size in range(len(message)):
        with pytest.raises(Damaged, match="wrong form"):
            decode(message[:size])
    with pytest.raises(Damaged):
        decode(message + b"\0")


@pytest.mark.parametrize(
    "message",
    [
        struct.pack(">cQqI", b"B", 1, 2**63 - 1, 9),  # a time that no calendar has
        struct.pack(">cQqI", b"B", 1, -(2**63), 9),
        _relation(b"\xff", b"t", b"d"),
        _relation(b"public", b"\xc3", b"d"),
        _relation(b"public", b"t", b"d", (0, b"\x80")),
        _relation(b"public", b"t", b"x"),
        b"I" + HEAD + b"O" + ONE,
        b"I" + HEAD + b"N" + _values(b"b" + _u32(1) + b"1"),  # binary was not asked for
        b"I" + HEAD + b"N" + _values(b"t" + _u32(2**32 - 1) + b"1"),
        b"I" + HEAD + b"N" + struct.pack(">H", 65_535),
        b"U" + HEAD + b"X" + ONE,
        b"U" + HEAD + b"K" + ONE + b"O" + ONE,
        b"U" + HEAD + b"K" + _values(b"u", b"n") + b"N" + ONE,
        b"D" + HEAD + b"N" + ONE,
        b"D" + HEAD + b"O" + _values(_text(b"1"), b"u"),
        b"T" + struct.pack(">IB", 2**32 - 1, 0),
        b"M" + bytes(9) + b"no end",
    ],
)
def test_what_no_server_sends_is_damaged(message: bytes) -> None:
    with pytest.raises(Damaged):
        _decoded(message)


def test_a_foreign_prefix_may_be_any_bytes_but_is_never_ours() -> None:
    prefix, content = pgoutput.logical(_said(b"\xffkryonix", b"\xff"))

    assert (prefix == "kryonix", content) == (False, b"\xff")


@given(kind=st.sampled_from(sorted(DECODERS)), body=st.binary(max_size=80))
def test_any_bytes_are_a_message_or_damaged(kind: str, body: bytes) -> None:
    try:
        DECODERS[kind](kind.encode() + body)
    except Damaged:
        pass


@given(message=st.sampled_from(MESSAGES), place=st.integers(1, 40), to=st.integers(0, 255))
def test_one_changed_byte_gives_a_message_or_damaged(message: bytes, place: int, to: int) -> None:
    changed = bytearray(message)
    changed[1 + place % (len(changed) - 1)] = to
    try:
        _decoded(bytes(changed))
    except Damaged:
        pass


values = st.one_of(st.none(), st.just(UNCHANGED), st.binary(max_size=300))


@given(st.lists(values, max_size=5).map(tuple))
def test_a_row_is_read_as_it_was_written(row: Row) -> None:
    part = pgoutput.encoded_row(row)

    assert pgoutput.row(part) == row
    assert pgoutput.is_whole(part) == (UNCHANGED not in row)
    assert not pgoutput.is_whole(part + b"t")


# ---------------------------------------------------------------------- frames


def _framed(*messages: bytes) -> bytes:
    return b"".join(_u32(len(message)) + message for message in messages)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=12), st.lists(st.integers(0, 900)))
def test_frames_do_not_depend_on_pieces(messages: list[bytes], cuts: list[int]) -> None:
    body = _framed(*messages)
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [memoryview(body)[start:end] for start, end in pairwise(places)]

    assert list(pgoutput.frames(pieces)) == messages


@given(cut=st.integers(1, 9))
def test_frames_that_end_too_early_are_damaged(cut: int) -> None:
    body = _framed(b"first", b"second")

    found = pgoutput.frames([body[:-cut]])
    assert next(found) == b"first"
    with pytest.raises(Damaged, match="cut short"):
        next(found)


@pytest.mark.parametrize("body", [_u32(2**32 - 1) + b"x", b"\0", _u32(0), _framed(b"a") + _u32(0)])
def test_frames_that_make_no_sense_are_damaged(body: bytes) -> None:
    with pytest.raises(Damaged):
        list(pgoutput.frames([body]))


# ---------------------------------------------------------------------- a server's own


def _sent(server: PostgresServer, *statements: str) -> list[bytes]:
    """What a server sends for one transaction after a few statements of preparation."""
    name = new_database(server, "pgoutput")
    with server.connect(name) as connection:
        for statement in (
            'create table "tä.b" (a int primary key, b text, c text)',
            'alter table "tä.b" alter c set storage external',
            "create table whole (a int, b text)",
            "alter table whole replica identity full",
            "create publication p for all tables",
        ):
            connection.execute(statement)
        slot = f"select pg_create_logical_replication_slot('{name}', 'pgoutput')"
        connection.execute(slot)
        with connection.transaction():
            for statement in statements:
                connection.execute(statement)
        return sent(connection, name)


@pytest.mark.service
def test_what_a_server_sends_is_understood(postgres: PostgresServer) -> None:
    messages = _sent(
        postgres,
        """insert into "tä.b" values (1, null, repeat('x', 5000))""",
        """update "tä.b" set b = E'tab\\t ä'""",
        """update "tä.b" set a = 2""",
        """delete from "tä.b" """,
        "insert into whole values (null, '')",
        "update whole set a = 3",
        "delete from whole",
        "select pg_logical_emit_message(true, 'their ü', 'said')",
        'truncate "tä.b", whole',
    )  # fmt: skip
    told = {
        relation.name: relation
        for relation in (pgoutput.relation(each) for each in messages if each[:1] == b"R")
    }
    table, whole = told["tä.b"], told["whole"]
    long = b"x" * 5000

    assert table[1:] == ("public", "tä.b", "d", ("a", "b", "c"), (0,))
    assert whole[1:] == ("public", "whole", "f", ("a", "b"), (0, 1))
    assert [_decoded(each) for each in messages if each[:1] in (b"I", b"U", b"D")] == [
        Change(table.oid, None, (b"1", None, long)),
        Change(table.oid, None, (b"1", "tab\t ä".encode(), UNCHANGED)),
        Change(table.oid, (b"1", None, None), (b"2", "tab\t ä".encode(), UNCHANGED)),
        Change(table.oid, (b"2", None, None), None),
        Change(whole.oid, None, (None, b"")),
        Change(whole.oid, (None, b""), (b"3", b"")),
        Change(whole.oid, (b"3", b""), None),
    ]
    (emptied,) = [each for each in messages if each[:1] == b"T"]
    assert sorted(pgoutput.truncated(emptied)) == sorted([table.oid, whole.oid])
    assert [_decoded(each) for each in messages if each[:1] == b"M"] == [("their ü", b"said")]
    began = pgoutput.begin(messages[0])
    assert abs(began.time - datetime.now(UTC)).total_seconds() < 600
    assert {each[:1] for each in messages} == {b"B", b"R", b"I", b"U", b"D", b"M", b"T", b"C"}
