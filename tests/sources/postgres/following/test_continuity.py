"""A log that cannot go on without a gap is never gone on with."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from kryonix_backup.errors import LogBroken, SourceUnavailable
from kryonix_backup.model import LogHeader
from kryonix_backup.sources.postgres.following.continuity import (
    Continued,
    check_continuity,
    command,
    told_of_stream,
)
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import PostgresServer, start_postgres
from tests.services.postgres import new_database
from tests.sources.postgres.log import Followed

pytestmark = pytest.mark.service


def _check(followed: Followed, opening: LogHeader, last: LogHeader) -> Continued:
    address = followed.address
    with connected(address) as one, connected(address, replication="database") as two:
        return check_continuity(one, two, address, opening, last)


def test_a_log_that_goes_on_is_gone_on_with(followed: Followed) -> None:
    followed.drain()

    assert _check(followed, followed.opening, followed.last) == (1, False)


@pytest.mark.parametrize(
    ("meta", "match"),
    [
        ({"slot": "another"}, "slot another is gone"),
        ({"system": "1"}, "another server"),
        ({"log": "1/1"}, "another database of the same name"),
        ({"publication": 1}, "made anew"),
    ],
)
def test_what_is_not_as_it_was_breaks_the_log(
    followed: Followed, meta: dict[str, Any], match: str
) -> None:
    opening = followed.opening
    changed = opening._replace(meta={**opening.meta, **meta})

    with pytest.raises(LogBroken, match=match):
        _check(followed, changed, followed.last)


def test_a_server_that_is_behind_or_on_another_timeline_breaks_the_log(followed: Followed) -> None:
    last = followed.last
    with pytest.raises(LogBroken, match="earlier state"):
        _check(followed, followed.opening, last._replace(end=1 << 62))
    with pytest.raises(LogBroken, match="moved on, or made anew"):
        _check(followed, followed.opening, last._replace(end=1))


def test_a_publication_that_is_gone_breaks_the_log(followed: Followed) -> None:
    followed.run(f"drop publication {followed.slot}")

    with pytest.raises(LogBroken, match=r"publication .* is gone"):
        _check(followed, followed.opening, followed.last)


def test_a_slot_of_another_database_is_not_ours(postgres: PostgresServer) -> None:
    one, two = (Followed(postgres, new_database(postgres)) for _ in range(2))
    opening = one.opening._replace(meta={**one.opening.meta, "slot": two.slot})

    with pytest.raises(LogBroken, match="of another database"):
        _check(one, opening, one.last)


def test_a_promoted_server_leads_on_from_what_it_had() -> None:
    with start_postgres(18) as server:
        followed = Followed(server, "postgres")
        server.stop()
        (server.data / "standby.signal").touch()
        server.start()
        followed.run("select pg_promote()")
        followed.run("checkpoint")

        with pytest.raises(LogBroken, match="was promoted"):
            _check(followed, followed.opening, followed.last._replace(end=1 << 62))
        assert _check(followed, followed.opening, followed.last).timeline == 2
        with pytest.raises(LogBroken, match="does not come from"):
            _check(followed, followed.opening, followed.last._replace(meta={"timeline": 7}))


def test_a_slot_whose_log_was_given_up_breaks_the_log() -> None:
    with start_postgres(18, {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB",
                             "max_wal_size": "32MB"}) as server:  # fmt: skip
        followed = Followed(server, "postgres")
        for _ in range(4):
            followed.run("select pg_switch_wal()", "create table if not exists w ()", "checkpoint")

        with pytest.raises(LogBroken, match=r"given up what slot .* kept \(wal_removed\)"):
            _check(followed, followed.opening, followed.last)


def test_replication_commands_tell_their_errors(followed: Followed) -> None:
    with (
        connected(followed.address, replication="database") as replication,
        pytest.raises(psycopg.errors.SyntaxError),
    ):
        command(replication, "NONSENSE")


def test_errors_of_a_stream_that_mean_a_gap_are_told_as_one(followed: Followed) -> None:
    lost = told_of_stream(pg.UndefinedObject("gone"), followed.address, followed.last)
    other = told_of_stream(pg.AdminShutdown("bye"), followed.address, followed.last)

    assert isinstance(lost, LogBroken)
    assert isinstance(other, SourceUnavailable)
