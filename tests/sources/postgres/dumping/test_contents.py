from __future__ import annotations

import pytest

from kryonix_backup.sources.postgres.dumping.contents import (
    database_of,
    roles_of,
    sequences_of,
    tables_of,
)
from kryonix_backup.sources.postgres.dumping.objects import large_objects_of
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres import rich

pytestmark = pytest.mark.service


def test_what_is_in_a_database_is_told(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    rich.fill(postgres, database)
    with postgres.connect(database) as made:
        made.execute("create schema kryonix; create table kryonix.ours (a int)")
        made.execute("create temporary table passing (a int)")

        with connected(Address.parse(postgres.url(database))) as connection:
            tables = {(table.schema, table.name): table for table in tables_of(connection)}
            sequences = sequences_of(connection)
            objects = dict(large_objects_of(connection))
            roles = {role["name"]: role for role in roles_of(connection)}
            itself = database_of(connection)

    assert {name for _, name in tables} == {
        "customer", "Order %.item", "event_old", "event_new", "parent", "child", "nothing"
    }  # fmt: skip
    assert "shout" not in tables["crm", "customer"].columns  # it is generated
    assert tables["crm", "nothing"].columns == ()
    assert sequences == [
        ["crm", "customer_id_seq", 502], ["crm", "never", None], ["crm", "ticket", 1234]
    ]  # fmt: skip
    assert objects[424242]["comment"] == "a picture"
    assert roles["Owner of crm"]["member_of"] == ["app_reader"]
    assert roles["Owner of crm"]["password"].startswith("SCRAM-SHA-256$")
    assert "postgres" not in roles
    assert itself["materialized"] == [["crm", "count"], ["crm", "count_again"]]
    assert [None, ["search_path=crm, public", "work_mem=7MB", "TimeZone=Asia/Tokyo"]] in itself[
        "settings"
    ]


def test_who_may_not_see_passwords_gets_roles_without_them(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    rich.fill(postgres, database)
    with postgres.connect(database) as made:
        made.execute("drop role if exists seeing")
        made.execute("create role seeing login")
        made.execute(f'grant connect on database "{database}" to seeing')

    with connected(Address.parse(postgres.url(database, user="seeing"))) as connection:
        roles = roles_of(connection)

    assert roles
    assert all("password" not in role for role in roles)
