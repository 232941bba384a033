"""What a log needs is looked at, and said so that it can be mended."""

from __future__ import annotations

import pytest

from kryonix_backup.errors import SourceUnprepared
from kryonix_backup.sources.postgres.preparation.needs import (
    Found,
    identities,
    log_needs,
    named,
    not_in_the_log,
    room,
    wal_kept,
    without_identity,
)
from kryonix_backup.sources.postgres.preparation.preparing import release
from kryonix_backup.sources.postgres.server.address import Address, slot_name
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions
from tests.services.postgres import new_database
from tests.sources.postgres.prepared import PreparedDatabase

pytestmark = pytest.mark.service

# Of each: its name, how it is made, and what it lacks an identity for.
_TABLES = {
    "plain": "create table plain (a int)",
    "deferred": "create table deferred (a int primary key deferrable)",
    "nothing": "create table nothing (a int primary key); alter table nothing replica identity"
    " nothing",
    "unindexed": "create table unindexed (a int not null); create unique index i on unindexed (a);"
    " alter table unindexed replica identity using index i; drop index i",
    'Wild "; x': 'create table "Wild ""; x" (a int)',
    "leaf": "create table part (a int) partition by list (a); create table leaf partition of part"
    " default",
}  # fmt: skip
_FINE = (
    "create table keyed (a int primary key)",
    "create table whole (a int)",
    "alter table whole replica identity full",
    "create table indexed (a int not null unique)",
    "alter table indexed replica identity using index indexed_a_key",
    "create unlogged table unlogged (a int)",
    "create temporary table passing (a int)",
    "create view seen as select 1 as a",
    "create materialized view kept as select 1 as a",
)


def test_only_tables_whose_rows_could_not_be_changed_are_named(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        for statement in (*_FINE, *_TABLES.values()):
            connection.execute(statement.encode())
        lacking = {name for _, name, _ in without_identity(connection)}
        found = identities(connection)

        assert lacking == set(_TABLES)
        assert not found.passed
        assert "6 tables have none" in found.evidence
        assert "and 1 more" in found.evidence

        for table in sorted(lacking):  # and the server thinks so too
            connection.execute("create publication p for all tables")
            quoted = '"' + table.replace('"', '""') + '"'
            with pytest.raises(Exception, match=r"does not have (a )?replica identity"):
                connection.execute(f"update {quoted} set a = 1".encode())
            connection.execute("drop publication p")


def test_what_the_server_takes_from_no_publication_is_not_named(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        for statement in _FINE:
            connection.execute(statement.encode())
        assert identities(connection).passed
        connection.execute("create publication p for all tables")
        for table in ("keyed", "whole", "indexed", "unlogged", "passing"):
            connection.execute(f"update {table} set a = 1".encode())


def test_a_servers_settings_are_told(postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        found = {each.what: each for each in [*log_needs(connection, "none"), *room(connection)]}

    assert {what for what, each in found.items() if not each.passed} == {
        "log: max_slot_wal_keep_size"
    }
    assert found["log: wal_level"].evidence == "logical"


def test_what_a_server_lacks_comes_with_what_mends_it() -> None:
    few = {"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1",
           "max_slot_wal_keep_size": "1GB"}  # fmt: skip
    for version in versions():
        with start_postgres(version, few) as server, server.connect() as connection:
            connection.execute("select pg_create_physical_replication_slot('another')")
            connection.execute('create role "Weak ""one""" login')
            needs = [*log_needs(connection, "postgres"), *room(connection)]
            lacking = {each.what: each for each in needs if not each.passed}
            assert set(lacking) == {
                "log: wal_level", "log: replication slots", "log: WAL senders",
            }  # fmt: skip
            assert lacking["log: replication slots"].evidence == "1 of 1 are used"
            for need in lacking.values():
                connection.execute(need.mend.partition(";")[0].encode())
            connection.execute('set role "Weak ""one"""')
            (weak,) = [each for each in log_needs(connection, "postgres")
                       if each.what == "log: right to replicate"]  # fmt: skip
            connection.execute("reset role")
            assert not weak.passed
            connection.execute(weak.mend.encode())


def test_our_own_slot_needs_no_other(postgres: PostgresServer) -> None:
    with PreparedDatabase(postgres) as made, postgres.connect(made.database) as connection:
        needs = {need.what: need for need in log_needs(connection, made.database)}

    assert needs["log: replication slots"].passed


def test_what_is_in_no_log_is_told(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        assert list(not_in_the_log(connection)) == []
        connection.execute("select lo_create(0)")
        (found,) = not_in_the_log(connection)
        assert (found.what, found.passed) == ("log: large objects", True)

        connection.execute('create role "Weak ""two""" login')
        connection.execute('set role "Weak ""two"""')
        (lacking,) = not_in_the_log(connection)
        connection.execute("reset role")
        assert not lacking.passed
        connection.execute(lacking.mend.encode())
        connection.execute('set role "Weak ""two"""')
        assert [each.passed for each in not_in_the_log(connection)] == [True]
        connection.execute('reset role; drop role "Weak ""two"""')


def test_traces_of_us_are_found(postgres: PostgresServer) -> None:
    with PreparedDatabase(postgres) as made, postgres.connect(made.database) as connection:
        whole = Found(connection, made.slot)
        as_another = Found(connection, slot_name("another"))
        release(made.address)
        gone = Found(connection, made.slot)

    assert whole.anything
    assert not whole.stale
    assert (as_another.publications, as_another.slots) == ([made.slot], [made.slot])
    assert as_another.stale
    assert not gone.anything


def test_names_of_ours_that_are_anothers_are_refused(postgres: PostgresServer) -> None:
    with PreparedDatabase(postgres) as made, connected(Address.parse(postgres.url())) as other:
        with pytest.raises(SourceUnprepared, match=f"of another database, '{made.database}'"):
            Found(other, made.slot).refuse_others()
        assert not Found(other, made.slot).anything


def test_many_names_are_cut_short() -> None:
    assert named(list("abcde")) == "a, b, c, d, e"
    assert named(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_what_a_slot_keeps_is_said_with_what_comes_next() -> None:
    assert wal_kept(7, None) == "7 bytes of WAL"
    assert wal_kept(7, 9) == "7 bytes of WAL, 9 bytes until it is lost"
    assert wal_kept(7, -9) == "7 bytes of WAL, and is lost at the next checkpoint"
    assert wal_kept(None, None) == "nothing any more"
