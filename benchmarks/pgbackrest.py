"""pgBackRest beside us: a repository of a whole cluster, and its restore to a moment."""

from __future__ import annotations

import os
import pwd
import shutil
import time
from datetime import datetime
from pathlib import Path

import psycopg
from postgres_measure import Figure, Measures, server_cpu

from kryonix_backup.testing.postgres import PostgresServer, new_folder

PROGRAM = Path("/usr/bin/pgbackrest")
_WAIT_S = 3600.0


def settings(folder: Path) -> dict[str, str]:
    """What a server needs so that pgBackRest keeps its log; makes the folder for it."""
    folder.mkdir()
    _own(folder)
    return {
        "archive_mode": "on",
        "archive_command": f"{PROGRAM} --config={folder}/pgbackrest.conf --stanza=main"
        " archive-push %p",
        "unix_socket_directories": str(folder),  # it connects in no other way
    }


class PgBackRest:
    """The repository of one cluster, in a folder that the server's user owns."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._config = folder / "pgbackrest.conf"
        for name in ("repo", "log", "lock", "spool"):
            (folder / name).mkdir()
        self._config.write_text(
            f"[global]\nrepo1-path={folder}/repo\nlog-path={folder}/log\n"
            f"lock-path={folder}/lock\nspool-path={folder}/spool\n"
            "process-max=2\nstart-fast=y\ncompress-type=lz4\nlog-level-console=warn\n"
            f"[main]\npg1-path={server.data}\npg1-port={server.port}\n"
            f"pg1-socket-path={folder}\npg1-user=postgres\n"
        )
        _own(folder)

    def words(self, *words: str) -> list[str | Path]:
        """The command, as the server's user."""
        return [*_as_user(), PROGRAM, f"--config={self._config}", "--stanza=main", *words]

    def back_up(self, measures: Measures) -> None:
        """The whole cluster."""
        measures.run("pgBackRest stanza", self.words("stanza-create"))
        measures.run("pgBackRest full backup of the cluster", self.words("backup", "--type=full"))

    def finish_log(self) -> None:
        """Wait until the log up to now is in the repository."""
        with self._server.connect() as connection:
            row = connection.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
        assert row is not None
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            with self._server.connect() as connection:
                done = connection.execute(
                    "select last_archived_wal >= %s from pg_stat_archiver", row
                ).fetchone()
            if done is not None and done[0]:
                return
            time.sleep(0.2)
        raise SystemExit("pgBackRest did not take the log")

    def restore(self, measures: Measures, moment: datetime) -> PostgresServer:
        """The whole cluster as it was at a moment, started; the caller removes it."""
        other = _beside(self._server)
        target = f"--target={moment.isoformat(sep=' ')}"
        words = self.words(f"--pg1-path={other.data}", "restore", "--type=time", target)
        measures.run("pgBackRest restore of the cluster", [*words, "--target-action=promote"])
        started = time.monotonic()
        other.start()
        while _recovering(other):
            time.sleep(0.05)
        took = time.monotonic() - started
        measures.note("pgBackRest: log replayed", Figure(took, 0.0, server_cpu(other)))
        return other


def _beside(server: PostgresServer) -> PostgresServer:
    """A server of the same kind whose data directory is empty."""
    kept = {name: value for name, value in server.settings.items() if not name.startswith("arch")}
    other = new_folder(server.major, {**kept, "archive_mode": "off"})
    other.data.mkdir(mode=0o700)
    _own(other.data)
    return other


def _recovering(server: PostgresServer) -> bool:
    try:
        with server.connect() as connection:
            row = connection.execute("select pg_is_in_recovery()").fetchone()
    except psycopg.OperationalError:
        return True
    return bool(row and row[0])


def _as_user() -> list[str | Path]:
    if os.geteuid():
        return []
    return [shutil.which("setpriv") or "setpriv", "--reuid=nobody", "--clear-groups"]


def _own(path: Path) -> None:
    if os.geteuid() == 0:
        account = pwd.getpwnam("nobody")
        for each in (path, *path.rglob("*")):
            os.chown(each, account.pw_uid, account.pw_gid)
