from __future__ import annotations

import pytest

from kryonix_backup.errors import ConfigError
from kryonix_backup.sources.postgres.checking import check
from kryonix_backup.sources.postgres.preparation.preparing import prepare, release
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.source import Finding
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions
from tests.services.postgres import new_database
from tests.sources.postgres import rich
from tests.sources.postgres.prepared import PreparedDatabase

pytestmark = pytest.mark.service


def test_a_superuser_may_read_everything(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    rich.fill(postgres, database)

    findings = check(Address.parse(postgres.url(database)))

    assert [finding.what for finding in findings if not finding.passed] == []
    assert f"PostgreSQL {postgres.major}" in findings[0].evidence
    assert "crm.scratch" in findings[-1].evidence


def test_what_a_user_lacks_is_named_with_what_mends_it(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    rich.fill(postgres, database)
    with postgres.connect(database) as connection:
        connection.execute("drop role if exists weak")
        connection.execute("create role weak login")
        connection.execute(f'grant connect on database "{database}" to weak')
        address = Address.parse(postgres.url(database, user="weak"))

        missing = {finding.what: finding for finding in check(address) if not finding.passed}
        assert set(missing) == {
            "tables and sequences that may be read",
            "rows that no policy hides",
            "large objects that may be read",
        }
        assert "crm.customer" in missing["rows that no policy hides"].evidence
        for what in ("tables and sequences that may be read", "rows that no policy hides"):
            connection.execute(missing[what].mend.encode())

        left = [finding.what for finding in check(address) if not finding.passed]
        connection.execute("revoke pg_read_all_data from weak")
    assert left == ["large objects that may be read"]


def test_a_server_that_does_not_answer_is_a_finding() -> None:
    (finding,) = check(Address.parse("postgresql://postgres@127.0.0.1:1/acme"))

    assert not finding.passed
    assert "127.0.0.1:1/acme" in finding.evidence
    assert "server runs" in finding.mend


def test_programs_that_are_missing_are_a_finding(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(major: int) -> None:
        raise ConfigError("psql is not installed here", "Install it.")

    monkeypatch.setattr("kryonix_backup.sources.postgres.checking.programs_for", missing)

    findings = check(Address.parse(postgres.url()))

    assert [finding.mend for finding in findings if not finding.passed] == ["Install it."]


def _failed(address: Address) -> dict[str, Finding]:
    return {finding.what: finding for finding in check(address) if not finding.passed}


def test_a_database_without_a_log_is_well_and_told_what_one_needs() -> None:
    for version in versions():
        with start_postgres(version, {"wal_level": "replica"}) as server:
            with server.connect() as connection:
                connection.execute("create table plain (a int)")
            address = Address.parse(server.url())
            (log,) = [finding for finding in check(address) if finding.what.startswith("log")]

            assert _failed(address) == {}
            assert "kryonix source prepare ID NAME" in log.evidence
            assert "wal_level (replica); replica identities (1 tables have none" in log.evidence
            assert log.mend == ""


def test_a_role_that_may_only_read_needs_no_other_right(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("drop role if exists mere_reader")
        connection.execute("create role mere_reader login")
        connection.execute("create table t (a serial primary key)")
        connection.execute("grant select on all tables in schema public to mere_reader")
        connection.execute("grant select on all sequences in schema public to mere_reader")
    address = Address.parse(postgres.url(database, user="mere_reader"))

    failed = _failed(address)
    with postgres.connect(database) as connection:
        connection.execute("drop owned by mere_reader")

    assert failed == {}


def test_a_prepared_database_is_looked_at_for_its_log(postgres: PostgresServer) -> None:
    with PreparedDatabase(postgres) as made:
        assert set(_failed(made.address)) == {"log: max_slot_wal_keep_size"}
        whats = [finding.what for finding in check(made.address)]
        (slot,) = [each for each in check(made.address) if each.what == "log: slot"]
        assert {"log: wal_level", "log: prepared", "log: replica identities"} <= set(whats)
        assert "is reserved, not followed, and keeps" in slot.evidence

        made.admin("alter event trigger kryonix_ddl_command_end disable")
        made.admin('create table "Un""done" (a int)')
        failed = _failed(made.address)
        assert '"Un""done"' in failed["log: replica identities"].evidence
        assert "drop publication" in failed["log: prepared"].evidence
        assert failed["log: prepared"].mend.startswith("kryonix source prepare ID NAME")

        prepare(made.address, replica_identity_full=True)
        assert set(_failed(made.address)) == {"log: max_slot_wal_keep_size"}
        release(made.address)
        assert _failed(made.address) == {}


@pytest.mark.parametrize(
    "left",
    [
        "drop schema kryonix cascade",
        "drop publication kryonix_@name@",
        "select pg_drop_replication_slot('kryonix_@name@')",
    ],
)
def test_what_is_left_of_a_log_fails(postgres: PostgresServer, left: str) -> None:
    with PreparedDatabase(postgres) as made:
        made.admin(left.replace("@name@", made.database))

        failed = _failed(made.address)
        assert "are missing, the first: " in failed["log: prepared"].evidence
        assert "kryonix source release ID NAME" in failed["log: prepared"].mend


def test_a_schema_of_the_tenant_with_our_name_is_no_log(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("create schema kryonix")

    assert list(_failed(Address.parse(postgres.url(database)))) == ["the schema kryonix"]


def test_a_slot_that_is_lost_is_told() -> None:
    for version in versions():
        with start_postgres(version, {"max_slot_wal_keep_size": "1MB"}) as server:
            address = Address.parse(server.url())
            prepare(address, replica_identity_full=True)
            assert _failed(address) == {}
            with server.connect() as connection:
                for _ in range(3):
                    connection.execute("create table w as select 1 as a")
                    connection.execute("drop table w")
                    connection.execute("select pg_switch_wal()")
                connection.execute("checkpoint")

            failed = _failed(address)
            assert set(failed) == {"log: prepared", "log: slot"}
            assert "is lost" in failed["log: slot"].evidence
            assert failed["log: slot"].evidence.endswith("keeps nothing any more")
            assert "--kind full" in failed["log: slot"].mend
