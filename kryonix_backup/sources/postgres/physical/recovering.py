"""Running a server on restored files until its recovery has come to the wanted end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import RestoreError, ValidationFailed
from kryonix_backup.sources.postgres.physical.programs import Account, run, start

_POLL_S = 0.05
_STOP_S = 600.0
_SAID_BYTES = 2000
_LOG = "server.log"
_STATUS_LINE = 7  # of postmaster.pid
# What the server must have at least as much of as the one that wrote the WAL.
_SIZES = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
    "track_commit_timestamp": "track_commit_timestamp setting",
}
# The tenant's own settings come with the files, in postgresql.auto.conf at least: nothing of them
# may reach the tenant's archive, standbys or clients from here, nor need what this machine lacks.
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "ssl": "off",
    "external_pid_file": "",
    "unix_socket_group": "",
    "archive_mode": "off",
    "wal_level": "replica",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "max_logical_replication_workers": "0",  # a copy must not take the tenant's subscriptions over
    "synchronous_standby_names": "",
    "shared_preload_libraries": "",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "shared_buffers": "128MB",
    "min_dynamic_shared_memory": "0",
    "wal_buffers": "-1",
    "wal_compression": "off",
    "default_toast_compression": "pglz",
    "max_stack_depth": "2MB",
    "max_wal_size": "4GB",
    "huge_pages": "try",
    "autovacuum": "off",
    "fsync": "on",
    "recovery_init_sync_method": "syncfs",
    "hot_standby": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "restore_command": "false",  # everything that is needed lies in pg_wal already
    "recovery_target": "",
    "recovery_target_name": "",
    "recovery_target_xid": "",
    "recovery_target_lsn": "",
    "recovery_target_time": "",
    "recovery_target_inclusive": "on",
    "recovery_target_timeline": "current",
    "recovery_target_action": "promote",
    "recovery_min_apply_delay": "0",
    "recovery_end_command": "",
    "archive_cleanup_command": "",
}
_SESSION = {
    "default_transaction_read_only": "off",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "search_path": "pg_catalog,pg_temp",
}
_SESSION_OF_17 = {"event_triggers": "off"}
_SETTINGS_OF_18 = {"io_method": "worker"}
# What says how the files came here, and is no longer so.
_SPENT = (
    "backup_label.old", "backup_manifest", "postmaster.opts",
    "recovery.signal", "standby.signal", "tablespace_map.old",
)  # fmt: skip
_STOPPED = re.compile(r"recovery stopping (?:before|after) [^\n]*")
_STOPPED_TIME = re.compile(r"time (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)[+]00")


def end_leftover(data: Path, clock: Clock | None = None) -> None:
    """End the server of a recovery whose process was killed; does nothing where there is none."""
    clock = clock or SystemClock()
    while (pid := _server_in(data)) is not None:
        os.kill(pid, signal.SIGQUIT)
        clock.sleep(_POLL_S)


class Recovery:
    """
    The recovery of one data directory, once, by a server that nobody else can reach.

    Nothing of its settings is left in the directory: they are given on its command line.
    """

    def __init__(
        self, data: Path, programs: Path, account: Account, clock: Clock | None = None
    ) -> None:
        self._data = data
        self._programs = programs
        self._account = account
        self._clock = clock or SystemClock()

    def to(self, until: datetime | None, superuser: str) -> str:
        """
        Recover to a time, or without one to the end of the backup; what the server said of it.

        Afterwards the cluster was shut down in order and is on a timeline of its own. Raises
        ValidationFailed where it did not stop where it should, RestoreError where it failed.
        """
        target = {"recovery_target": "immediate"}
        if until is not None:
            target = {"recovery_target_time": until.astimezone(UTC).isoformat(sep=" ")}
        signalled = self._data / "recovery.signal"
        signalled.touch(0o600)
        self._account.give(signalled)
        with _folder(self._account) as folder:
            self._run(folder, target, superuser)
            said = (folder / _LOG).read_text("utf-8", "replace")
        stopped = _STOPPED.search(said)
        if stopped is None or not _fits(stopped[0], until):
            raise ValidationFailed(
                f"the server's recovery did not stop at {until or 'the end of the backup'}:"
                f" {stopped[0] if stopped else _end_of(said)}"
            )
        if self.control()["Database cluster state"] != "shut down":
            raise ValidationFailed(f"the server did not leave {self._data} shut down in order")
        for name in _SPENT:
            (self._data / name).unlink(missing_ok=True)
        return stopped[0]

    def control(self) -> dict[str, str]:
        """What the cluster's control file says, by PostgreSQL's own words."""
        said = run([self._programs / "pg_controldata", "-D", self._data], self._account)
        rows = (line.partition(":") for line in said.splitlines())
        return {name.strip(): value.strip() for name, _, value in rows}

    def _major(self) -> int:
        return int((self._data / "PG_VERSION").read_text())

    def _run(self, folder: Path, target: Mapping[str, str], superuser: str) -> None:
        """Start the server, wait until it is open for writing, and stop it."""
        words = [self._programs / "postgres", "-D", self._data, *self._settings(folder, target)]
        with (folder / _LOG).open("wb") as log:
            server = start(words, self._account, log)
        try:
            self._wait(server, folder)
            _prove(folder, superuser, self._major())
            server.send_signal(signal.SIGINT)  # at once, but in order
            if server.wait(_STOP_S):
                raise _failed(folder)
        except subprocess.TimeoutExpired as error:
            raise _failed(folder) from error
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGQUIT)
                server.wait()

    def _wait(self, server: subprocess.Popen[bytes], folder: Path) -> None:
        """Until the server says in its own file that it is ready; however long that takes."""
        while not self._is_ready():
            if server.poll() is not None:
                raise _failed(folder)
            self._clock.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"

    def _settings(self, folder: Path, target: Mapping[str, str]) -> list[str | Path]:
        control = self.control()
        settings = {
            # One target after the others were taken back: the server refuses two of them.
            **{name: value for name, value in _SETTINGS.items() if name not in target},
            **(_SETTINGS_OF_18 if self._major() >= 18 else {}),
            **{name: control[line] for name, line in _SIZES.items()},
            **target,
            "config_file": str(folder / "postgresql.conf"),
            "hba_file": str(folder / "pg_hba.conf"),
            "ident_file": str(folder / "pg_ident.conf"),
            "unix_socket_directories": str(folder),
            "unix_socket_permissions": "0700",
        }
        return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _server_in(data: Path) -> int | None:
    """The process that is a server and is in that directory; it may not be the one that was."""
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
        if os.readlink(f"/proc/{pid}/cwd") == str(data.resolve()):
            return pid
    except (OSError, ValueError, IndexError):
        pass
    return None


@contextmanager
def _folder(account: Account) -> Iterator[Path]:
    """A folder of the account alone, with a short name: the path of a socket has 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="kryonix-"))
    try:
        for name, text in (
            ("postgresql.conf", ""),
            ("pg_hba.conf", "local all all trust\n"),  # only the account gets so far as to ask
            ("pg_ident.conf", ""),
        ):
            (folder / name).write_text(text)
            account.give(folder / name)
        account.give(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prove(folder: Path, superuser: str, major: int) -> None:
    """
    Raise ValidationFailed where the server does not take a transaction that writes.

    What the tenant has set for a database or a role, and what it runs at a login, is left out.
    """
    settings = _SESSION | (_SESSION_OF_17 if major >= 17 else {})
    try:
        with psycopg.connect(
            host=str(folder), port=_SETTINGS["port"], user=superuser, dbname="template1",
            options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
        ) as connection:  # fmt: skip
            connection.execute("create temporary table kryonix_proof (a int)")
            row = connection.execute("select pg_is_in_recovery()").fetchone()
    except psycopg.Error as error:
        raise ValidationFailed(f"the recovered server does not answer: {error}") from error
    if row is None or row[0]:
        raise ValidationFailed("the recovered server did not come out of its recovery")


def _fits(stopped: str, until: datetime | None) -> bool:
    """Whether recovery ended at what was wanted: the first commit later than a time."""
    found = _STOPPED_TIME.search(stopped)
    if until is None or found is None:
        return until is None
    return datetime.fromisoformat(f"{found[1]}+00:00") > until


def _failed(folder: Path) -> RestoreError:
    said = _end_of((folder / _LOG).read_text("utf-8", "replace"))
    return RestoreError(f"the server that recovers the cluster has ended: {said}")


def _end_of(said: str) -> str:
    return " ".join(said[-_SAID_BYTES:].split())
