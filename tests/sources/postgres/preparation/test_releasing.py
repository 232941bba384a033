"""`release` leaves nothing of us, and nothing that is the tenant's is touched."""

from __future__ import annotations

import pytest

from kryonix_backup.errors import (
    AlreadyRunning,
    SourceUnprepared,
)
from kryonix_backup.sources.postgres.preparation.preparing import (
    release,
    renew_slot,
)
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres import rich
from tests.sources.postgres.log import Followed
from tests.sources.postgres.prepared import Tenant

pytestmark = pytest.mark.service


def test_release_leaves_no_trace(tenant: Tenant) -> None:
    rich.fill(tenant.server, tenant.database, rows=5)
    tenant.run(
        "create schema odd",
        "set search_path = odd",
        "create table nothing (a int primary key)",
        "alter table nothing replica identity nothing",
        "create table full_before (a int)",
        "alter table full_before replica identity full",
        "create table indexed (a int not null)",
        "create unique index i on indexed (a)",
        "alter table indexed replica identity using index i",
        'create table "wild ""; drop table t; --%s {x}" (a int)',
    )
    before = tenant.schema()
    tenant.prepare()
    assert tenant.schema() != before
    removed = release(tenant.address)

    assert tenant.schema() == before
    assert tenant.ours() == []
    assert {f"slot {tenant.slot}", f"publication {tenant.slot}", "schema kryonix"} <= set(removed)
    assert release(tenant.address) == []


def test_what_was_made_while_prepared_is_put_back_too(tenant: Tenant) -> None:
    tenant.prepare()
    tenant.run("create table plain (a int)", "create table keyed (a int primary key)")
    release(tenant.address)

    found = "select relreplident::text from pg_class where relname in ('plain', 'keyed')"
    assert tenant.run(found) == [("d",), ("d",)]


def test_a_log_that_is_followed_is_not_taken_away(postgres: PostgresServer) -> None:
    followed = Followed(postgres, new_database(postgres))
    tenant = Tenant(postgres, followed.database)
    before = tenant.ours()
    with followed.log.follow(followed.opening, followed.last):
        with pytest.raises(AlreadyRunning):
            release(tenant.address)
        with pytest.raises(AlreadyRunning):
            renew_slot(tenant.address)
        assert tenant.ours() == before

    release(tenant.address)
    assert tenant.ours() == []


def test_what_is_left_of_us_is_released(tenant: Tenant) -> None:
    before = tenant.schema()
    tenant.prepare()
    tenant.run("drop schema kryonix cascade", "create table t (a int primary key)", "drop table t")

    assert release(tenant.address) == [f"publication {tenant.slot}", f"slot {tenant.slot}"]
    assert (tenant.schema(), tenant.ours()) == (before, [])


def test_a_database_of_another_name_than_before(tenant: Tenant) -> None:
    tenant.prepare()
    renamed = Tenant(tenant.server, f"{tenant.database}_renamed")
    with tenant.server.connect() as connection:
        connection.execute(f"alter database {tenant.database} rename to {renamed.database}")
        connection.execute(f"create database {tenant.database}")

    with pytest.raises(SourceUnprepared, match=f"is of another database, '{renamed.database}'"):
        tenant.prepare()
    assert tenant.ours() == []
    assert release(tenant.address) == []
    assert f"slot {tenant.slot}" in renamed.ours()

    renamed.prepare()
    assert f"slot {tenant.slot}" not in renamed.ours()
    assert f"publication {tenant.slot}" not in renamed.ours()
    tenant.prepare()
    release(renamed.address)
    assert renamed.ours() == []
    assert f"slot {tenant.slot}" in tenant.ours()


def test_a_copy_of_a_prepared_database_is_released_whole(tenant: Tenant) -> None:
    tenant.prepare()
    copy = Tenant(tenant.server, f"{tenant.database}_copy")
    with tenant.server.connect() as connection:
        connection.execute(f"create database {copy.database} template {tenant.database}")
    release(copy.address)

    assert copy.ours() == []
    assert tenant.plan() == []


def test_a_schema_of_the_tenant_with_our_name_stays(tenant: Tenant) -> None:
    tenant.run("create schema kryonix", "create table kryonix.identity (a int primary key)")
    before = tenant.schema()

    with pytest.raises(SourceUnprepared, match="not ours"):
        tenant.prepare()
    assert release(tenant.address) == []
    assert tenant.schema() == before


def test_what_the_tenant_put_into_our_schema_stops_a_release(tenant: Tenant) -> None:
    tenant.prepare()
    tenant.run("create table kryonix.precious (a int)")
    before = tenant.ours()

    with pytest.raises(Exception, match=r"drop schema kryonix because.*precious"):
        release(tenant.address)
    assert tenant.ours() == before
    tenant.run("drop table kryonix.precious")
