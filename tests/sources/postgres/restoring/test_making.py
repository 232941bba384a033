from __future__ import annotations

from typing import Any

import psycopg
import pytest

from kryonix_backup.sources.postgres.dumping.contents import database_of
from kryonix_backup.sources.postgres.restoring.making import (
    dress_database,
    give_rights,
    make_database,
    make_roles,
    rights_of,
)
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

pytestmark = pytest.mark.service

ROLE: dict[str, Any] = {
    "name": "made by us", "superuser": False, "inherit": True, "createrole": False,
    "createdb": True, "login": True, "replication": False, "bypassrls": False,
    "connection_limit": 3, "valid_until": "2031-01-01 00:00:00+00", "member_of": [],
    "password": None,
}  # fmt: skip


def test_roles_that_are_missing_are_made_and_those_that_are_there_stay(
    postgres: PostgresServer,
) -> None:
    member = {**ROLE, "name": "its member", "member_of": ["made by us"]}
    with connected(Address.parse(postgres.url())) as connection:
        assert make_roles(connection, [member, ROLE]) == []
        connection.execute('alter role "made by us" connection limit 9')
        assert make_roles(connection, [member, ROLE]) == []

        found = connection.execute(
            "select rolcreatedb, rolconnlimit, pg_has_role('its member', 'made by us', 'member')"
            " from pg_roles where rolname = 'made by us'"
        ).fetchone()
        connection.execute('drop role "made by us", "its member"')
    assert found == (True, 9, True)


def test_a_role_gets_nothing_that_reaches_beyond_its_database(postgres: PostgresServer) -> None:
    role = {**ROLE, "name": "mighty", "superuser": True, "replication": True,
            "member_of": ["pg_execute_server_program", "another tenant's"]}  # fmt: skip
    with connected(Address.parse(postgres.url())) as connection:
        connection.execute("""create role "another tenant's" """)
        problems = make_roles(connection, [role])

        found = connection.execute(
            "select rolsuper, rolreplication, rolcreatedb,"
            " (select count(*) from pg_auth_members m where m.member = r.oid)"
            " from pg_roles r where rolname = 'mighty'"
        ).fetchone()
        connection.execute("""drop role mighty, "another tenant's" """)
    assert found == (False, False, True, 0)
    assert [problem.reason.partition("run: ")[2] for problem in problems] == [
        'alter role "mighty" superuser replication',
        'grant "pg_execute_server_program" to "mighty"',
        """grant "another tenant's" to "mighty\"""",
    ]


def test_what_the_server_refuses_is_told(postgres: PostgresServer) -> None:
    name = new_database(postgres)
    like = {"owner": "nobody at all", "acl": None,
            "settings": [[None, ["no_such_setting=1", "work_mem=5MB"]]]}  # fmt: skip
    with connected(Address.parse(postgres.url())) as connection:
        problems = give_rights(connection, name, like)
        problems += dress_database(connection, name, like)

    with connected(Address.parse(postgres.url(name))) as connection:
        made = database_of(connection)
    assert len(problems) == 2
    assert "nobody at all" in problems[0].reason
    assert [None, ["work_mem=5MB"]] in made["settings"]


def test_settings_come_back_as_they_were_whatever_is_in_their_names(
    postgres: PostgresServer,
) -> None:
    name = new_database(postgres)
    evil = "a.b = '1'; alter role postgres connection limit 5; --"
    settings = [
        'search_path="$user", "odd, ""one""", public', "app.tenant=it's", "DateStyle=SQL, DMY",
        'temp_tablespaces=""',
    ]  # fmt: skip
    like = {"settings": [[None, [*settings, f"{evil}=1"]]]}
    with connected(Address.parse(postgres.url())) as connection:
        problems = dress_database(connection, name, like)
        limit = connection.execute(
            "select rolconnlimit from pg_roles where rolname = 'postgres'"
        ).fetchone()

    with connected(Address.parse(postgres.url(name))) as connection:
        assert database_of(connection)["settings"] == [[None, settings]]
    assert limit == (-1,)
    assert len(problems) == 1


def test_nobody_else_is_let_into_a_database_that_is_being_filled(postgres: PostgresServer) -> None:
    like = {"encoding": "UTF8", "collate": "C", "ctype": "C", "provider": "c", "locale": None}
    name = f"{new_database(postgres)}_shut"
    with connected(Address.parse(postgres.url())) as connection:
        make_database(connection, name, like)
        make_roles(connection, [{**ROLE, "name": "outside"}])

    with pytest.raises(psycopg.OperationalError, match="too many connections"):
        postgres.connect(name, "outside")


def test_a_database_is_made_like_another_one(postgres: PostgresServer) -> None:
    like = {"encoding": "SQL_ASCII", "collate": "C", "ctype": "C", "provider": "c", "locale": None}
    name = f"{new_database(postgres)}_like"
    with connected(Address.parse(postgres.url())) as connection:
        make_database(connection, name, like)

    with connected(Address.parse(postgres.url(name))) as connection:
        made = database_of(connection)
    assert {field: made[field] for field in like} == like


def test_rights_are_read_as_postgresql_writes_them() -> None:
    rights = rights_of(
        ["=Tc/postgres", '"odd ""one"""=C*c/postgres', "plain=x/postgres"],
        {"C": "create", "c": "connect", "T": "temporary"},
    )

    assert [(who.as_string(None), right, option) for who, right, option in rights] == [
        ("public", "temporary", False), ("public", "connect", False),
        ('"odd ""one"""', "create", True), ('"odd ""one"""', "connect", False),
    ]  # fmt: skip
