"""Which large objects have changed since a horizon, and which there are."""

from __future__ import annotations

import pytest

from kryonix_backup.sources.postgres.dumping.objects import (
    about_objects,
    changed_objects,
    comments_on_objects,
    horizon_of_slot,
    large_objects_of,
    now_of,
    one_moment,
    runs_of_objects,
)
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres.prepared import PreparedDatabase

pytestmark = pytest.mark.service


def test_what_was_under_way_at_the_horizon_has_changed_since(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as other, postgres.connect(database) as more:
        more.execute("select lo_from_bytea(o, 'x') from generate_series(1, 9) o")
        other.execute("begin; savepoint s; select lo_put(2, 0, 'y'); release s")
        with connected(Address.parse(postgres.url(database))) as connection:
            now = now_of(connection)
            other.execute("commit")
            more.execute("grant select on large object 3 to public")
            more.execute("select lo_truncate(lo_open(4, 131072), 0), lo_create(20), lo_unlink(5)")
            later = now_of(connection)
            assert later.at is not None
            assert now.at is not None
            assert later.at > now.at
            assert changed_objects(connection, now.horizon, later.horizon) == [2, 3, 4, 20]
            assert changed_objects(connection, later.horizon, later.horizon) == []
            # A number that long ago cannot be compared.
            assert len(changed_objects(connection, 3, 3 + (1 << 31))) == 9
            assert len(changed_objects(connection, None, later.horizon)) == 9


def test_everything_is_looked_at_as_of_one_moment(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as other:
        other.execute("select lo_create(1), lo_create(2), lo_create(4)")
        other.execute("comment on large object 4 is 'four'")
        with connected(Address.parse(postgres.url(database))) as connection:
            with one_moment(connection) as time:
                other.execute("select lo_unlink(1)")
                assert time < now_of(connection).time
                assert runs_of_objects(connection) == [(1, 2), (4, 1)]
                assert comments_on_objects(connection) == [(4, "four")]
                everything = large_objects_of(connection)
                assert list(about_objects(connection, [1, 3, 4])) == [everything[0], everything[2]]
            assert runs_of_objects(connection) == [(2, 1), (4, 1)]


def test_what_is_seen_changes_with_an_object(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with (
        postgres.connect(database) as other,
        connected(Address.parse(postgres.url(database))) as connection,
    ):
        first = now_of(connection)
        assert (first.counted, first.may_look, first.any, first.ever) == (True, True, False, False)
        other.execute("create table t (a int); insert into t values (1)")
        other.execute("select pg_stat_force_next_flush()")
        assert now_of(connection).seen == first.seen
        for done in (
            "select lo_create(1)", "select lo_put(1, 0, 'x')", "select lo_put(1, 0, 'y')",
            "grant select on large object 1 to public", "select lo_unlink(1)",
            "select pg_stat_reset()",
        ):  # fmt: skip
            before = now_of(connection).seen
            other.execute(done.encode())
            other.execute("select pg_stat_force_next_flush()")
            assert now_of(connection).seen != before, done


def test_a_slot_has_a_horizon(postgres: PostgresServer) -> None:
    with PreparedDatabase(postgres) as made, connected(made.address) as connection:
        horizon = horizon_of_slot(connection, made.slot)
        assert horizon is not None
        assert 0 <= now_of(connection).horizon - horizon < 10_000
        assert horizon_of_slot(connection, "none") is None
