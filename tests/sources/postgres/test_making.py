from __future__ import annotations

from typing import Any

import pytest

from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.contents import database_of
from kryonix_backup.sources.postgres.making import (
    dress_database,
    give_rights,
    make_database,
    make_roles,
    rights_of,
)
from kryonix_backup.sources.postgres.session import connected
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


def test_what_the_server_refuses_is_told(postgres: PostgresServer) -> None:
    name = new_database(postgres)
    like = {"owner": "nobody at all", "connection_limit": 5, "acl": None,
            "settings": [[None, ["no_such_setting=1", "work_mem=5MB"]]]}  # fmt: skip
    with connected(Address.parse(postgres.url())) as connection:
        problems = give_rights(connection, name, like)
        problems += dress_database(connection, name, like)

    with connected(Address.parse(postgres.url(name))) as connection:
        made = database_of(connection)
    assert len(problems) == 2
    assert "nobody at all" in problems[0].reason
    assert made["connection_limit"] == 5
    assert [None, ["work_mem=5MB"]] in made["settings"]


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
