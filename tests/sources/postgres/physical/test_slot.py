from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from kryonix_backup.errors import AlreadyRunning, SourceUnprepared
from kryonix_backup.sources.postgres.physical.address import SLOT
from kryonix_backup.sources.postgres.physical.slot import (
    beat,
    begin,
    databases,
    look_at,
    missing,
    prepare,
    refuse_shared,
    release,
    slot_of,
)
from tests.sources.postgres.physical.owned import Followed, Owned

pytestmark = pytest.mark.service


@pytest.fixture
def another(owned: Owned) -> Iterator[str]:
    """Another database in the cluster."""
    owned.run("create database another")
    yield "another"
    owned.run("drop database another")


def test_a_slot_is_made_once_and_leaves_no_trace(owned: Owned) -> None:
    with owned.server.connect() as connection:
        assert missing(connection) == [
            f"select pg_create_physical_replication_slot('{SLOT}', true)"
        ]
        prepare(owned.address)
        prepare(owned.address)
        assert missing(connection) == []
        assert release(owned.address) == [f"replication slot {SLOT}"]
        assert release(owned.address) == []
        assert slot_of(connection) is None


def test_a_slot_that_is_read_is_not_released(owned: Owned) -> None:
    followed = Followed(owned)
    with followed.log.follow(followed.opening, followed.last):
        with pytest.raises(AlreadyRunning, match=SLOT):
            release(owned.address)
        with pytest.raises(AlreadyRunning, match=SLOT):
            followed.begin(renew=True)


def test_a_name_that_is_anothers_is_not_taken(owned: Owned) -> None:
    owned.run(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    with owned.server.connect() as connection, pytest.raises(SourceUnprepared, match="not ours"):
        slot_of(connection)


def test_the_databases_of_several_tenants_are_refused(owned: Owned, another: str) -> None:
    with owned.server.connect() as connection:
        assert databases(connection) == [another, "postgres"]
        with pytest.raises(SourceUnprepared, match=r"holds 2 databases \(another, postgres\)"):
            refuse_shared(connection, owned.address)
        refuse_shared(connection, owned.address._replace(own=True))
    with pytest.raises(SourceUnprepared, match="2 databases"):
        prepare(owned.address)


def test_one_database_beside_an_empty_postgres_is_one_tenants(owned: Owned, another: str) -> None:
    owned.run("drop table t")
    with owned.server.connect() as connection:
        assert databases(connection) == [another]
        refuse_shared(connection, owned.address)


def test_what_the_cluster_is(owned: Owned) -> None:
    with owned.server.connect() as connection:
        found = look_at(connection, owned.address)

    assert found.version // 10_000 == owned.server.major
    assert (found.timeline, found.segment, found.mode) == (1, 1 << 24, 0o700)
    assert found.superuser == "postgres"
    assert found.system.isdigit()


def test_a_log_begins_only_where_it_was_prepared(owned: Owned) -> None:
    with owned.server.connect() as connection:
        with pytest.raises(SourceUnprepared, match=SLOT):
            begin(connection, owned.address, renew=False)
        start = begin(connection, owned.address, renew=True)
        assert begin(connection, owned.address, renew=False) == start


def test_a_beat_is_committed_after_its_time(owned: Owned) -> None:
    with owned.server.connect() as connection:
        first, second = beat(connection), beat(connection)

    assert first.time < second.time
    assert first.end < second.end
    assert owned.now() - second.time < timedelta(seconds=60)
