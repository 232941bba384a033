from __future__ import annotations

import pytest

from kryonix_backup.errors import SourceUnavailable, SourceUnprepared
from kryonix_backup.sources.postgres.server.address import Address, slot_name
from kryonix_backup.sources.postgres.server.exported import exported, lsn_of
from kryonix_backup.testing.postgres import PostgresServer, start_postgres
from tests.services.postgres import new_database

pytestmark = pytest.mark.service


def test_without_a_slot_a_snapshot_has_no_place_in_the_log(postgres: PostgresServer) -> None:
    address = Address.parse(postgres.url(new_database(postgres)))

    with exported(address) as (connection, snapshot):
        assert snapshot.at is None
        assert connection.execute("select pg_current_xact_id_if_assigned()").fetchone() == (None,)


def test_with_a_slot_the_place_parts_what_is_seen_from_what_follows(
    postgres: PostgresServer,
) -> None:
    database = new_database(postgres)
    address = Address.parse(postgres.url(database))
    with postgres.connect(database) as writing:
        writing.execute("create table t (a int)")
        writing.execute(
            "select pg_create_logical_replication_slot(%s, 'test_decoding')",
            (slot_name(database),),
        )
        writing.execute("insert into t values (1)")
        with exported(address) as (connection, snapshot):
            writing.execute("insert into t values (2)")
            seen = connection.execute("select a from public.t").fetchall()
        rows = writing.execute(
            "select lsn::text, data from pg_logical_slot_get_changes(%s, null, null)",
            (slot_name(database),),
        ).fetchall()
        slots = writing.execute(
            "select slot_name from pg_replication_slots where database = %s", (database,)
        ).fetchall()
        writing.execute("select pg_drop_replication_slot(%s)", (slot_name(database),))

    assert seen == [(1,)]
    assert snapshot.at is not None
    commits = [lsn_of(str(lsn)) for lsn, data in rows if str(data).startswith("COMMIT")]
    assert [lsn < snapshot.at for lsn in commits] == [True, False]
    assert slots == [(slot_name(database),)]  # the temporary one is gone


def test_an_open_transaction_of_another_database_is_waited_for_only_so_long(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kryonix_backup.sources.postgres.server.exported._SLOT_SECONDS", 0.5)
    database, other = new_database(postgres), new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute(
            "select pg_create_logical_replication_slot(%s, 'test_decoding')",
            (slot_name(database),),
        )
    blocking = postgres.connect(other)
    try:
        blocking.execute("begin")
        blocking.execute("create table t (a int)")
        with pytest.raises(SourceUnavailable, match="open now"):
            exported(Address.parse(postgres.url(database))).__enter__()
    finally:
        blocking.close()
        with postgres.connect() as connection:
            connection.execute("select pg_drop_replication_slot(%s)", (slot_name(database),))


def test_a_server_without_a_free_slot_says_so() -> None:
    with start_postgres(15, {"max_replication_slots": "1"}) as server:
        with server.connect() as connection:
            connection.execute(
                "select pg_create_logical_replication_slot(%s, 'test_decoding')",
                (slot_name("postgres"),),
            )
        with pytest.raises(SourceUnprepared, match="all replication slots are in use"):
            exported(Address.parse(server.url())).__enter__()


def test_a_position_is_a_number() -> None:
    assert lsn_of("1/A") == (1 << 32) + 10
