"""What `prepare` makes, and that the tenant never notices."""

from __future__ import annotations

import threading

import pytest
from psycopg import sql

from kryonix_backup.errors import (
    SourceDenied,
    SourceUnavailable,
    SourceUnprepared,
)
from kryonix_backup.sources.postgres.preparation import preparing
from kryonix_backup.sources.postgres.preparation.beating import beat
from kryonix_backup.sources.postgres.preparation.preparing import (
    plan,
    prepare,
    prepared,
    release,
    renew_slot,
)
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions
from tests.services.postgres import new_database
from tests.sources.postgres.prepared import Tenant

pytestmark = pytest.mark.service


def test_a_plan_changes_nothing(tenant: Tenant) -> None:
    tenant.run("create table plain (a int)")
    before = tenant.schema()

    steps = tenant.plan()

    text = "\n".join(step.sql for step in steps)
    for made in (
        "create schema kryonix",
        f"create publication {tenant.slot} for all tables",
        "create event trigger kryonix_ddl_command_end",
        'alter table "public"."plain" replica identity full',
        f"pg_create_logical_replication_slot('{tenant.slot}'",
    ):
        assert made in text
    assert all(step.why for step in steps)
    assert (tenant.schema(), tenant.ours()) == (before, [])


def test_what_a_plan_says_can_be_run_by_hand(tenant: Tenant) -> None:
    tenant.run("create table plain (a int)")
    script = "".join(f"{step.sql};\n" for step in tenant.plan())

    tenant.server.run(
        "psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", tenant.database, stdin=script.encode()
    )

    assert tenant.plan() == []
    assert tenant.prepare().slot == tenant.slot


def test_what_is_prepared_is_prepared_once(tenant: Tenant) -> None:
    first = tenant.prepare()
    ours, schema = tenant.ours(), tenant.schema()

    assert tenant.plan() == []
    assert tenant.prepare() == first
    assert (tenant.ours(), tenant.schema()) == (ours, schema)
    assert ours == [
        "event trigger kryonix_ddl_command_end",
        "event trigger kryonix_sql_drop",
        "event trigger kryonix_table_rewrite",
        f"publication {tenant.slot}",
        "schema kryonix",
        f"slot {tenant.slot}",
    ]


@pytest.mark.parametrize("consent", [True, False])
def test_rows_of_every_table_can_be_changed_after(tenant: Tenant, *, consent: bool) -> None:
    if consent:
        tenant.run("create table t (a int)", "create table part (a int) partition by list (a)",
                   "create table leaf partition of part default")  # fmt: skip
    tenant.prepare(consent=consent)
    if not consent:
        tenant.run("create table t (a int)", "create table part (a int) partition by list (a)",
                   "create table leaf partition of part default")  # fmt: skip
    for table in ("t", "part"):
        tenant.run(
            f"insert into {table} values (1), (2)",
            f"update {table} set a = 3 where a = 1",
            f"delete from {table} where a = 3",
            f"truncate {table}",
        )


def test_without_consent_no_table_of_the_tenant_is_changed(tenant: Tenant) -> None:
    tenant.run('create table "No; key" (a int)')
    before = tenant.schema()

    with pytest.raises(SourceUnprepared, match=r'1 tables have none: .*"No; '):
        tenant.prepare(consent=False)
    assert (tenant.schema(), tenant.ours()) == (before, [])

    tenant.run('alter table "No; key" replica identity full')
    tenant.prepare(consent=False)


def test_a_table_made_meanwhile_can_be_changed_too(tenant: Tenant) -> None:
    """Its transaction began before there was a trigger of ours."""
    done: list[preparing.Prepared] = []
    with tenant.connect() as writing:
        writing.execute("begin")
        writing.execute("create table late (a int)")
        running = threading.Thread(target=lambda: done.append(tenant.prepare()))
        running.start()
        while "event trigger kryonix_sql_drop" not in tenant.ours():
            assert running.is_alive()
        writing.execute("insert into late values (1)")
        writing.execute("update late set a = 2")
        writing.execute("commit")
        running.join(30)
        writing.execute("update late set a = 3")

    assert [made.slot for made in done] == [tenant.slot]
    assert tenant.plan() == []


def test_a_transaction_that_does_not_end_is_named(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_OPEN_SECONDS", 0.3)
    with tenant.connect() as writing:
        writing.execute("begin")
        writing.execute("create table late (a int)")
        with pytest.raises(SourceUnavailable, match="open for more than") as caught:
            tenant.prepare()
        assert f"process {writing.info.backend_pid} in database {tenant.database}" in str(
            caught.value.hint
        )
        assert f"publication {tenant.slot}" not in tenant.ours()
        writing.execute("commit")
        writing.execute("update late set a = 1")

    tenant.prepare()


def test_a_slot_waits_for_open_transactions_longer_than_for_a_lock(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant.prepare()
    tenant.drop_slots()
    monkeypatch.setattr(preparing, "_PATIENCE", "set lock_timeout = '50ms'")
    monkeypatch.setattr(preparing, "_OPEN_SECONDS", 0.5)
    with tenant.connect() as writing:
        writing.execute("begin")
        writing.execute("select pg_current_xact_id()")
        with pytest.raises(SourceUnavailable, match="open for more than"):
            tenant.prepare()
        writing.execute("commit")

    assert f"slot {tenant.slot}" not in tenant.ours()
    tenant.prepare()


def test_a_prepared_transaction_is_named_too(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_OPEN_SECONDS", 0.3)
    name = f"left of {tenant.database}'s"
    quoted = name.replace("'", "''")
    with tenant.connect() as writing:
        writing.execute("begin")
        writing.execute("create table late (a int)")
        writing.execute(f"prepare transaction '{quoted}'".encode())
        with pytest.raises(SourceUnavailable) as caught:
            tenant.prepare()
        writing.execute(f"rollback prepared '{quoted}'".encode())

    assert f"prepared transaction '{quoted}' in database {tenant.database}" in str(
        caught.value.hint
    )
    tenant.prepare()


@pytest.mark.parametrize("step", ["prepare", "release"])
def test_a_table_in_use_stops_us_and_not_the_tenant(
    tenant: Tenant, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_PATIENCE", "set lock_timeout = '100ms'")
    tenant.run("create table plain (a int)")
    if step == "release":
        tenant.prepare()
    before = tenant.ours()
    with tenant.connect() as reading:
        reading.execute("begin")
        reading.execute("select from plain")
        with pytest.raises(SourceUnavailable, match="in use"):
            tenant.prepare() if step == "prepare" else release(tenant.address)
        assert step == "prepare" or tenant.ours() == before
        reading.execute("commit")

    if step == "prepare":
        tenant.prepare()
    else:
        release(tenant.address)
        assert tenant.ours() == []


def test_a_new_slot_begins_later_and_leaves_the_rest(tenant: Tenant) -> None:
    first = tenant.prepare()
    tenant.run("create table t (a int primary key)", "insert into t values (1)")
    second = renew_slot(tenant.address)

    assert second.start > first.start
    assert second._replace(start=0) == first._replace(start=0)
    with connected(tenant.address) as connection:
        assert prepared(connection, tenant.address) == second


def test_a_slot_is_not_given_up_where_no_other_can_follow(tenant: Tenant) -> None:
    first = tenant.prepare()
    tenant.run("create table t (a int)", "alter event trigger kryonix_ddl_command_end disable",
               "alter table t replica identity default")  # fmt: skip

    with pytest.raises(SourceUnprepared, match="replica identities"):
        renew_slot(tenant.address)
    with connected(tenant.address) as connection:
        assert prepared(connection, tenant.address) == first


@pytest.mark.parametrize(
    "harm",
    [
        "alter event trigger kryonix_sql_drop disable",
        "alter event trigger kryonix_sql_drop enable replica",
        "drop event trigger kryonix_table_rewrite",
        "alter publication @ours@ set (publish = 'insert')",
        "drop publication @ours@",
        """create or replace function kryonix.kryonix_own(stack text) returns boolean
        language sql as 'select true'""",
        "drop schema kryonix cascade",
    ],
)
def test_what_was_missing_makes_another_chain(tenant: Tenant, harm: str) -> None:
    first = tenant.prepare()
    tenant.run(harm.replace("@ours@", tenant.slot))
    with connected(tenant.address) as connection:
        try:
            seen = prepared(connection, tenant.address).publication
        except SourceUnprepared:
            seen = 0
    assert seen in (0, first.publication)

    assert tenant.plan()
    assert tenant.prepare().publication != first.publication
    assert tenant.plan() == []


def test_rights_that_were_taken_are_given_again(tenant: Tenant) -> None:
    first = tenant.prepare()
    tenant.run("revoke usage on schema kryonix from public")

    assert len(tenant.plan()) == 2
    assert tenant.prepare() == first
    assert tenant.plan() == []


def test_a_server_without_a_logical_log_is_left_alone() -> None:
    for version in versions():
        with start_postgres(version, {"wal_level": "replica"}) as server:
            tenant = Tenant(server, "postgres")
            before = tenant.schema()

            with pytest.raises(SourceUnprepared, match="wal_level: replica") as caught:
                tenant.prepare()
            assert "alter system set wal_level" in str(caught.value.hint)
            with pytest.raises(SourceUnprepared):
                renew_slot(tenant.address)
            assert (tenant.schema(), tenant.ours()) == (before, [])
            assert release(tenant.address) == []


def test_no_slot_too_few_and_a_lost_one_are_told() -> None:
    for version in versions():
        few = {"max_replication_slots": "1", "max_slot_wal_keep_size": "1MB"}
        with start_postgres(version, few) as server:
            tenant = Tenant(server, "postgres")
            tenant.prepare()
            other = Tenant(server, new_database(server))
            with pytest.raises(SourceUnprepared, match="replication slots: 1 of 1 are used"):
                other.prepare()
            assert other.ours() == []
            for _ in range(3):
                tenant.run("create table w as select 1 as a", "drop table w",
                           "select pg_switch_wal()")  # fmt: skip
            tenant.run("checkpoint")
            assert tenant.run("select wal_status from pg_replication_slots") == [("lost",)]

            assert [step.sql.split("(")[0] for step in tenant.plan()] == [
                "select pg_catalog.pg_drop_replication_slot",
                "select pg_catalog.pg_create_logical_replication_slot",
            ]
            tenant.prepare()
            assert tenant.run("select wal_status from pg_replication_slots") == [("reserved",)]


@pytest.mark.parametrize(
    "name",
    [
        "UPPER Case-and spaces",
        "quote\" and 'quote'; drop database postgres; --",
        "ünïcödé 🐘 %s {x} $kryonix$",
        "x" * 63,
        "slash/ed?a=b#c%41",
        "back\\slash",
    ],
)
def test_any_name_of_a_database_will_do(postgres: PostgresServer, name: str) -> None:
    with postgres.connect() as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    tenant = Tenant(postgres, name)
    tenant.run("create table plain (a int)")
    tenant.prepare()
    tenant.run("insert into plain values (1)", "update plain set a = 2", "drop table plain")
    with connected(tenant.address) as connection:
        assert beat(connection) > 0
        assert prepared(connection, tenant.address).slot == tenant.slot

    assert tenant.plan() == []
    release(tenant.address)
    assert tenant.ours() == []
    with postgres.connect() as connection:
        connection.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))


def test_a_plain_role_may_follow_but_not_prepare(tenant: Tenant) -> None:
    tenant.run(
        "do $$ begin create role plain_backup login replication; exception when duplicate_object"
        " then null; end $$",
        "grant pg_read_all_data to plain_backup",
    )
    plain = Address.parse(tenant.server.url(tenant.database, user="plain_backup"))

    with pytest.raises(SourceDenied, match="permission denied") as caught:
        prepare(plain, replica_identity_full=False)
    assert "superuser" in str(caught.value.hint)
    assert tenant.ours() == []

    tenant.prepare()
    assert plan(plain, replica_identity_full=False) == []
    assert renew_slot(plain).slot == tenant.slot
    tenant.run("create sequence s")
    with connected(plain) as connection:
        assert beat(connection) > 0


def test_a_role_that_may_not_replicate_is_told_before(tenant: Tenant) -> None:
    tenant.run(
        "do $$ begin create role plain_reader login; exception when duplicate_object"
        " then null; end $$",
        "create sequence s",
    )
    tenant.prepare()
    plain = Address.parse(tenant.server.url(tenant.database, user="plain_reader"))

    with pytest.raises(SourceUnprepared, match="may not follow a log") as caught:
        renew_slot(plain)
    assert 'alter role "plain_reader" replication' in str(caught.value.hint)
    assert f"slot {tenant.slot}" in tenant.ours()
    with connected(plain) as connection, pytest.raises(SourceDenied, match="every sequence"):
        beat(connection)
