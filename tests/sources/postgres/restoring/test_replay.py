"""A database comes back as it was at any moment that its log has seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from kryonix_backup.errors import TimeUnreachable
from kryonix_backup.model import ChainId, LogHeader
from kryonix_backup.sources.postgres.restoring.objects import Objects
from kryonix_backup.sources.postgres.restoring.replay import Hooks, replay
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.source import Log
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres.story import (
    CHANGES_OF_THE_SCHEMA,
    EVERYTHING,
    KEYED,
    LOOSE,
    ROWS,
    Load,
    Story,
)

pytestmark = pytest.mark.service


@pytest.mark.parametrize("load", [ROWS, CHANGES_OF_THE_SCHEMA], ids=["rows", "schema"])
def test_what_was_done_comes_back_as_it_was_at_each_moment(
    lived: Callable[[Load], Story], load: Load
) -> None:
    lived(load).without_incrementals().prove()


def test_everything_that_a_database_may_hold_comes_back(lived: Callable[[Load], Story]) -> None:
    lived(EVERYTHING).without_incrementals().prove()


def test_a_statement_is_read_as_it_was_then(story: Story) -> None:
    story.run(KEYED)
    story.begin()
    story.tell(
        ("set DateStyle = 'ISO, DMY'", "set TimeZone = 'Asia/Tokyo'",
         "set standard_conforming_strings = off",
         (r"create table dated (d date default '01/02/03', s text default 'a\'b',"
         " t timestamptz default '2026-05-06 01:00')"),
         "insert into dated default values"),
        ("set DateStyle = 'SQL, MDY'", "create table parts (d date) partition by range (d)",
         "create table one partition of parts for values from ('01/02/2026') to ('03/04/2026')",
         "insert into parts values ('02/01/2026')"),
    )  # fmt: skip
    story.prove()


def test_a_view_that_is_filled_later_is_filled_when_restored(story: Story) -> None:
    story.run(KEYED, "insert into keyed values (1)")
    story.begin()
    story.tell(
        ("create materialized view counted as select count(*) from keyed with no data",
         "refresh materialized view counted",
         "alter materialized view counted rename to recounted"),
        ("create materialized view more as select * from recounted with no data",
         "refresh materialized view more"),
    )  # fmt: skip
    story.prove()


def test_a_role_may_do_in_the_log_what_it_might_do_then(story: Story) -> None:
    name = story.database
    story.run(
        "drop role if exists maker", "create role maker login",
        f'grant create on database "{name}" to maker',
    )  # fmt: skip
    story.begin()
    with story.server.connect(name, "maker") as maker:
        maker.execute("create schema made")
        maker.execute("create table made.thing (a int primary key)")
        maker.execute("insert into made.thing values (1)")
    story.remember()
    story.run("select 1")
    story.client.back_up_logs()
    story.prove()


def test_sequences_are_never_behind_their_columns(story: Story) -> None:
    story.run("create table counted (id serial primary key, a text)", "create sequence free")
    story.begin()
    story.run(
        "insert into counted (a) select 'x' from generate_series(1, 40)", "select nextval('free')"
    )
    moment = story.remember()
    story.client.back_up_logs()

    target = story.restored_at(moment)

    with story.server.connect(target) as connection:
        connection.execute("insert into counted (a) values ('next')")
        rows = connection.execute("select max(id), nextval('free') >= 2 from counted").fetchone()
    assert rows == (41, True)


def test_the_commit_at_the_very_instant_is_in_and_the_next_is_not(story: Story) -> None:
    story.run("create table ticks (n int primary key)")
    story.begin()
    for n in range(3):
        story.run(f"insert into ticks values ({n})")
    with story.server.connect(story.database) as connection:
        times = connection.execute(
            "select n, pg_xact_commit_timestamp(xmin) from ticks order by n"
        ).fetchall()
    story.client.back_up_logs()
    second = times[1][1]
    assert isinstance(second, datetime)

    for moment, expected in (
        (second, [0, 1]),
        (second - timedelta(microseconds=1), [0]),
        (times[0][1], [0]),
        (times[2][1], [0, 1, 2]),
    ):
        assert isinstance(moment, datetime)
        target = story.restored_at(moment)
        with story.server.connect(target) as connection:
            found = connection.execute("select n from ticks order by n").fetchall()
        assert [n for (n,) in found] == expected


def test_a_moment_that_the_log_has_not_reached_is_refused(story: Story) -> None:
    story.run(KEYED)
    story.begin()
    story.run("insert into keyed values (1)")
    moment = story.remember()

    with pytest.raises(TimeUnreachable):
        story.restored_at(moment)
    story.client.back_up_logs()
    story.restored_at(moment)


def test_around_a_change_that_cannot_be_repeated_everything_else_can_be_had(story: Story) -> None:
    """The bad migration: the moment before it, and whatever comes after the next full backup."""
    story.run(KEYED, "insert into keyed values (1, '1', 'b')")
    story.begin()
    story.run("update keyed set b = 'before' where id = 1")
    before = story.remember()
    story.run("alter table keyed alter a type int using a::int")
    between = story.remember()
    story.client.backup()
    story.run("insert into keyed values (2, 2, 'after')")
    after = story.remember()
    story.run("select 1")
    story.client.back_up_logs()  # all of it comes in one segment

    with pytest.raises(TimeUnreachable, match="it rewrote the rows of"):
        story.restored_at(between)
    del story.moments[1]
    assert [moment for moment, _, _ in story.moments] == [before, after]
    story.prove()


def test_a_restore_leaves_nothing_of_the_log_in_the_new_database(story: Story) -> None:
    story.run(KEYED)
    story.begin()
    story.tell(("insert into keyed values (1)",))
    target = story.restored_at(story.moments[0][0])

    with story.server.connect(target) as connection:
        left = connection.execute(
            "select nspname from pg_namespace where nspname like '%kryonix%'"
            " union all select pubname from pg_publication"
            " union all select evtname from pg_event_trigger"
        ).fetchall()
    assert left == []


def test_a_large_transaction_and_many_parts_of_a_fold(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kryonix_backup.sources.postgres.restoring.replay._MOST_KEYS", 1000)
    story.run(KEYED, LOOSE)
    story.begin()
    story.tell(
        ("insert into keyed select g, 'a', 'b' from generate_series(1, 30000) g",),
        ("update keyed set a = 'c' where id % 2 = 0", "delete from keyed where id % 3 = 0",
         "insert into loose select id, a from keyed"),
        ("update loose set b = 'd' where a % 5 = 0", "delete from loose where a % 7 = 0"),
    )  # fmt: skip
    story.prove()


def test_a_change_of_the_schema_is_only_believed_to_our_trigger(story: Story) -> None:
    story.run(
        KEYED, "drop role if exists forger", "create role forger login",
        "grant create on schema public to forger",
    )  # fmt: skip
    story.begin()
    with story.server.connect(story.database, "forger") as forger:
        forger.execute("create table forged (id int primary key)")
        for attempt in (
            "insert into kryonix.told (content) values ('x')",
            "insert into kryonix.identity values ('pg_class'::regclass, 'd')",
            "select kryonix.kryonix_say('x')",
            "select kryonix.kryonix_record('CREATE TABLE', 'public', '{}', '')",
            "select kryonix.kryonix_ddl_end()",
            "create table public.evil as select kryonix.kryonix_say('x')",
        ):
            with pytest.raises(psycopg.Error):
                forger.execute(attempt.encode())
    before = story.remember()
    story.run("select 1")
    story.client.back_up_logs()
    target = story.restored_at(before)
    with story.server.connect(target) as connection:
        owner = connection.execute(
            "select pg_get_userbyid(relowner) from pg_class where relname = 'forged'"
        ).fetchone()
    assert owner == ("forger",)

    with story.server.connect(story.database, "forger") as forger:
        forger.execute("select pg_logical_emit_message(true, 'kryonix', %s)", (FORGED,))
    after = story.remember()
    story.client.back_up_logs()
    with pytest.raises(TimeUnreachable, match="not written by our trigger"):
        story.restored_at(after)
    story.restored_at(before)


FORGED = json.dumps({
    "kind": "ddl", "tag": "ALTER ROLE", "query": "alter role forger superuser", "role": "postgres",
    "search_path": "public", "missing": [], "opaque": "", "settings": {},
})  # fmt: skip


def _prepared_transactions(server: PostgresServer) -> bool:
    with server.connect() as connection:
        row = connection.execute(
            "select current_setting('max_prepared_transactions')::int"
        ).fetchone()
    return bool(row and row[0])


def test_a_transaction_in_two_phases_is_in_when_it_is_committed(story: Story) -> None:
    assert _prepared_transactions(story.server)
    story.run(KEYED)
    story.begin()
    name = story.database
    story.run(f"begin; insert into keyed values (1, 'two', 'phases'); prepare transaction '{name}'")
    story.tell(("insert into keyed values (2)",), (f"commit prepared '{name}'",))
    story.prove()


def test_the_first_commit_that_is_later_ends_it_whatever_comes_after(
    postgres: PostgresServer,
) -> None:
    """Times of commits are not in the order of the log: this is the server's own rule."""
    text = bytes((1, ord("a"), 0, *(25).to_bytes(4), *(2**32 - 1).to_bytes(4)))
    relation = b"R" + (9).to_bytes(4) + b"public\0ticks\0d\0\1" + text

    def one(number: int, second: int) -> bytes:
        place, time = 100 * number, (second * 1_000_000).to_bytes(8)
        begun = b"B" + place.to_bytes(8) + time + bytes(4)
        row = b"I" + (9).to_bytes(4) + b"N\0\1t\0\0\0\1" + str(number).encode()
        ended = b"C\0" + place.to_bytes(8) + (place + 1).to_bytes(8) + time
        messages = (begun, relation, row, ended)
        return b"".join(len(each).to_bytes(4) + each for each in messages)

    body = one(1, 10) + one(2, 12) + one(3, 11) + one(4, 13)
    header = LogHeader(ChainId("c"), 1, 0, 401, None, None, None, 4, 4)
    for second, expected in ((9, ""), (10, "1"), (11, "1"), (12, "123"), (13, "1234")):
        database = new_database(postgres)
        with postgres.connect(database) as connection:
            connection.execute("create table ticks (a text primary key)")
            until = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
            changes = Log(0, until, until, [(header, [body])])
            hooks = Hooks(lambda: None, lambda: None)
            none = Objects(None, until, 0)
            replay(changes, Address.parse(postgres.url(database)), hooks, none)
            row = connection.execute("select coalesce(string_agg(a, '' order by a), '') from ticks")
            assert row.fetchone() == (expected,)
