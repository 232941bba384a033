"""Recovery comes to the wanted end, or says why not, and reaches nobody meanwhile."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from kryonix_backup.errors import RestoreError
from kryonix_backup.sources.postgres.physical import recovering
from kryonix_backup.sources.postgres.physical.programs import server_of
from kryonix_backup.sources.postgres.physical.recovering import Recovery, end_leftover
from kryonix_backup.sources.postgres.physical.writing import write_backups
from kryonix_backup.testing.postgres import start_postgres
from tests.sources.postgres.physical.owned import Owned, account, content_of, given

pytestmark = pytest.mark.service


def _recovery(owned: Owned, folder: Path) -> Recovery:
    owned.backup()
    write_backups(given(content_of(owned)), folder, account())
    return Recovery(folder / "full", server_of(owned.server.major, combines=False), account())


def test_a_time_that_the_wal_does_not_reach_is_told(older: Owned) -> None:
    with older.directory() as folder:
        recovery = _recovery(older, folder)
        with pytest.raises(RestoreError, match="before configured recovery target was reached"):
            recovery.to(older.now() + timedelta(days=1), "postgres")


def test_the_tenants_own_settings_reach_nobody(older: Owned) -> None:
    with older.directory() as folder:
        written = folder / "archived"
        settings = {
            "archive_mode": "on", "archive_command": f"touch {written}", "port": "1",
            "listen_addresses": "*", "shared_preload_libraries": "nothing", "ssl": "on",
            "recovery_target_lsn": "0/1", "restore_command": f"touch {written}",
            "recovery_min_apply_delay": "1d", "default_transaction_read_only": "on",
            "shared_buffers": "1TB", "log_min_messages": "panic", "logging_collector": "on",
        }  # fmt: skip
        recovery = _recovery(older, folder)
        with (folder / "full/postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        before = (folder / "full/postgresql.auto.conf").read_text()
        said = recovery.to(None, "postgres")

        assert said == "recovery stopping after reaching consistency"
        assert recovery.control()["Database cluster state"] == "shut down"
        assert recovery.control()["Latest checkpoint's TimeLineID"] == "2"
        assert not written.exists()
        assert (folder / "full/postgresql.auto.conf").read_text() == before
        left = {path.name for path in (folder / "full").iterdir()}
        assert not left & {*recovering._SPENT, "postmaster.pid", "backup_label"}


def test_a_copy_takes_no_subscription_over_and_runs_nothing_at_its_login(owned: Owned) -> None:
    """What a role or a database has set, and what fires at a login, would run on this machine."""
    with owned.directory() as folder:
        owned.run("alter database template1 set default_transaction_read_only = on")
        owned.run("alter database template1 set session_preload_libraries = 'nothing'")
        recovery = _recovery(owned, folder)
        owned.run("alter database template1 reset all")
        words = [str(word) for word in recovery._settings(folder, {})]

        recovery.to(None, "postgres")

    assert "max_logical_replication_workers=0" in words


def test_a_server_that_a_killed_restore_left_is_ended(older: Owned) -> None:
    with start_postgres(older.server.major) as left:
        end_leftover(left.data.parent)
        assert left.process is not None
        assert left.process.poll() is None
        threading.Thread(target=left.process.wait, daemon=True).start()  # as init would
        end_leftover(left.data)
        left.process.wait(20)
        end_leftover(left.data)
