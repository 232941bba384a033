from __future__ import annotations

import pytest

from kryonix_backup.errors import ConfigError
from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.checking import check
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres import rich

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
