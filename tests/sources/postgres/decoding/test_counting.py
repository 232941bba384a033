"""A segment's body is counted as it was when it was cut, and read as strictly as a replay does."""

from __future__ import annotations

import struct

import pytest

from kryonix_backup.errors import Damaged
from kryonix_backup.model import ChainId, LogHeader
from kryonix_backup.sources.postgres.decoding.counting import count_log
from kryonix_backup.sources.postgres.decoding.framing import Cutter
from kryonix_backup.testing.postgres import PostgresServer
from tests.maintenance.logs import OURS, TABLE, framed, relation, row, transaction
from tests.services.postgres import new_database
from tests.sources.postgres.log import Followed

OPENING = LogHeader(
    ChainId("c"), 0, 0, 0, None, None, None, 0, 0, meta={"publication": 7, "timeline": 1}
)
BEGIN = struct.pack(">cQqI", b"B", 9, 0, 9)
COMMIT = struct.pack(">cBQQq", b"C", 0, 9, 10, 0)
IDENTITY = b"N\0\1t" + struct.pack(">I", 1) + b"2"
UPDATE = b"U" + struct.pack(">I", TABLE) + IDENTITY
DELETE = b"D" + struct.pack(">I", TABLE) + b"K" + IDENTITY[1:]
TRUNCATE = struct.pack(">cIBI", b"T", 1, 0, TABLE)
ORIGIN = struct.pack(">cQ", b"O", 1) + b"elsewhere\0"
SAID = struct.pack(">cBQ", b"M", 1, 5) + b"theirs\0" + struct.pack(">I", 2) + b"hi"


def test_it_counts_what_the_cutter_counted() -> None:
    cutter = Cutter(OPENING, OPENING, 1 << 20)
    for message in (
        relation(), BEGIN, ORIGIN, row(), UPDATE, DELETE, TRUNCATE, SAID, COMMIT,
    ):  # fmt: skip
        cutter.add(message)
    body = cutter.take()
    header = cutter.close(1)

    assert count_log([body]) == (header.commits, header.changes) == (1, 4)
    assert count_log([body[at : at + 7] for at in range(0, len(body), 7)]) == (1, 4)


def test_changes_of_our_own_tables_are_none_of_the_tenants() -> None:
    assert count_log([transaction(relation(OURS, b"kryonix"), row(OURS))]) == (1, 0)
    assert count_log([]) == (0, 0)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (framed(BEGIN, BEGIN), "inside another one"),
        (framed(COMMIT), "did not begin"),
        (framed(BEGIN, COMMIT + b"\0"), "wrong form"),
        (framed(BEGIN), "ends inside"),
        (transaction(row()), "before it says what it is"),
        (transaction(relation(), row()[:-1]), "wrong form"),
        (transaction(b"Z"), "unknown kind 90"),
        (transaction(TRUNCATE + b"\0"), "wrong form"),
        (transaction(SAID[:-1]), "wrong form"),
        (transaction()[:-1], "cut short"),
        (framed(b""), "empty message"),
    ],
)
def test_what_a_replay_would_stumble_over_is_damaged(body: bytes, match: str) -> None:
    with pytest.raises(Damaged, match=match):
        count_log([body])


@pytest.mark.service
def test_what_a_server_sent_is_counted_as_its_segments_say(postgres: PostgresServer) -> None:
    log = Followed(postgres, new_database(postgres), most_bytes=4096)
    for column in ("c", "d"):
        log.run("insert into t select n, repeat('x', 90) from generate_series(1, 200) n")
        log.run("update t set b = null where a < 100", f"alter table t add {column} int default 3")
        log.run("delete from t where a % 7 = 0", "truncate t")
        log.drain()

    assert len(log.kept) >= 2
    assert sum(header.changes for header, _ in log.kept) > 500
    for header, body in log.kept:
        assert count_log([body]) == (header.commits, header.changes)
