"""The server's own base backup, over the wire."""

from __future__ import annotations

import json

import pytest

from kryonix_backup.errors import SourceError, SourceUnavailable, SourceUnprepared
from kryonix_backup.sources.postgres.physical.archive import Archive
from kryonix_backup.sources.postgres.physical.basebackup import BaseBackup
from kryonix_backup.sources.postgres.physical.log import replicating
from tests.sources.postgres.physical.owned import Owned

pytestmark = pytest.mark.service


def test_a_backup_holds_the_cluster_and_the_wal_it_needs(older: Owned) -> None:
    with replicating(older.address) as connection:
        base = BaseBackup(connection, older.address.server)
        base.begin()
        members = list(Archive(base.archive()).members())
        manifest = json.loads(b"".join(bytes(piece) for piece in base.manifest()))
        end = base.finish()

    paths = [member.path for member in members]
    wal = [path for path in paths if path.startswith(b"pg_wal/0")]
    assert {b"PG_VERSION", b"backup_label", b"global/pg_control"} <= set(paths)
    assert len(wal) >= 1
    assert base.start.lsn < end.lsn
    assert base.start.timeline == end.timeline == 1
    held = {row["Path"] for row in manifest["Files"]}
    assert held <= {path.decode() for path in paths}


def test_a_server_that_breaks_off_is_passing(older: Owned) -> None:
    with replicating(older.address) as connection:
        base = BaseBackup(connection, older.address.server)
        base.begin()
        archive = base.archive()
        next(archive)
        older.run(
            "select pg_terminate_backend(pid) from pg_stat_replication"
            " where application_name = 'kryonix-backup'"
        )
        with pytest.raises(SourceUnavailable):
            list(archive)


def test_a_manifest_that_does_not_fit_is_refused_before_anything_comes(owned: Owned) -> None:
    with replicating(owned.address) as connection:
        base = BaseBackup(connection, owned.address.server)
        reason = base.begin_after([b"{}\n"])

    assert "manifest" in reason


def test_a_page_that_its_checksum_does_not_fit_is_told(owned: Owned) -> None:
    owned.run("drop table if exists spoiled", "create table spoiled (a int)",
              "insert into spoiled values (1)", "checkpoint")  # fmt: skip
    ((name,),) = owned.run("select pg_relation_filepath('spoiled')")
    path = owned.server.data / name
    page = bytearray(path.read_bytes())
    page[8000] ^= 0xFF
    path.write_bytes(page)
    try:
        with replicating(owned.address) as connection:
            base = BaseBackup(connection, owned.address.server)
            base.begin()
            members = list(Archive(base.archive()).members())
            list(base.manifest())
            with pytest.raises(SourceError, match="checksum"):
                base.finish()
    finally:
        owned.run("drop table spoiled")
    assert members


def test_tablespaces_are_refused(older: Owned) -> None:
    with older.directory() as folder:
        older.run(f"create tablespace apart location '{folder}'")
        try:
            with replicating(older.address) as connection:
                base = BaseBackup(connection, older.address.server)
                with pytest.raises(SourceUnprepared, match="tablespaces"):
                    base.begin()
        finally:
            older.run("drop tablespace apart")
