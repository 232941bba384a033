from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.errors import RestoreError, TargetFull
from kryonix_backup.sources.postgres.restoring.archive import Archive
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

pytestmark = pytest.mark.service


def _archive(server: PostgresServer, database: str, folder: Path) -> list[bytes]:
    with server.connect(database) as connection:
        connection.execute("create schema kryonix; create table public.t (a int primary key)")
        connection.execute(
            "create function public.f() returns event_trigger language plpgsql as"
            " 'begin perform 1; end'"
        )
        connection.execute(
            "create event trigger kryonix_sql_drop on ddl_command_end execute function public.f()"
        )
        connection.execute(
            "create event trigger tenants_own on ddl_command_end execute function public.f()"
        )
        connection.execute("create publication kryonix_x for all tables")
        connection.execute("create publication tenants for all tables")
        connection.execute(
            "do $$ begin create role kryonix_app; exception when duplicate_object then null; end $$"
        )
        connection.execute('create schema "kryonix PUBLICATION - kryonix_x "')
        connection.execute("create schema app authorization kryonix_app")
        connection.execute("comment on schema app is 'not of kryonix_backup'")
        connection.execute("create publication app; alter publication app owner to kryonix_app")
    server.run("pg_dump", "-Fc", "-s", "--exclude-schema=kryonix", "-f", f"{folder}/a", database)
    return [(folder / "a").read_bytes()]


def test_what_is_ours_stays_out_and_what_is_the_tenants_comes(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = _archive(postgres, new_database(postgres), tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    new = new_database(postgres)
    address = Address.parse(postgres.url(new))

    with Archive(postgres.programs, pieces) as archive:
        archive.make(address, "pre-data", 1)
        with postgres.connect(new) as connection:
            keys = connection.execute("select count(*) from pg_constraint").fetchone()
        archive.make(address, "post-data", 2)
        assert not list((tmp_path / "temporary").iterdir())  # nothing that anybody could open

    with postgres.connect(new) as connection:
        triggers = connection.execute("select evtname from pg_event_trigger").fetchall()
        publications = connection.execute(
            "select pubname from pg_publication order by 1"
        ).fetchall()
        later = connection.execute("select count(*) from pg_constraint").fetchone()
        schemas = connection.execute(
            "select nspname, obj_description(oid) from pg_namespace where nspname ~ 'app|kryonix'"
            " order by 1"
        ).fetchall()
    assert triggers == [("tenants_own",)]
    assert publications == [("app",), ("tenants",)]
    assert schemas == [
        ("app", "not of kryonix_backup"), ("kryonix PUBLICATION - kryonix_x ", None)
    ]  # fmt: skip
    assert keys != later  # keys come after the rows


def test_what_cannot_be_made_says_what_stood_in_the_way(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = new_database(postgres)
    with (
        Archive(postgres.programs, _archive(postgres, database, tmp_path)) as archive,
        pytest.raises(RestoreError, match="already exists"),
    ):
        archive.make(Address.parse(postgres.url(database)), "pre-data", 1)


def test_bytes_that_are_no_archive_are_refused(postgres: PostgresServer) -> None:
    with pytest.raises(RestoreError, match="the saved schema"):
        Archive(postgres.programs, [b"no archive"])


def test_a_server_without_room_for_an_index_is_full(tmp_path: Path) -> None:
    program = tmp_path / "pg_restore"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *--list*) exit 0;; esac\n'
        "echo 'could not extend file \"base/1/2\": No space left on device' >&2; exit 1\n"
    )
    program.chmod(0o755)
    with (
        Archive(tmp_path, [b"an archive"]) as archive,
        pytest.raises(TargetFull, match=r"its schema \(post-data\) cannot be made: .*No space"),
    ):
        archive.make(Address.parse("postgresql://postgres@127.0.0.1/acme"), "post-data", 2)
