"""A schema's archive, brought into a database by `pg_restore` in two halves."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from kryonix_backup.errors import RestoreError, SourceError, TargetFull
from kryonix_backup.model import Blob
from kryonix_backup.sources.postgres.dumping.reading import environment
from kryonix_backup.sources.postgres.preparation.preparing_sql import TRIGGERS
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import conninfo
from kryonix_backup.sources.process import Program

# What `prepare` made in the database that was saved, and does not belong to the tenant. Our schema
# is not in the archive; a line ends in the owner's name, which may be like ours.
_OURS = re.compile(
    rf"^\d+; \d+ \d+ (?:EVENT TRIGGER - (?:{'|'.join(each.name for each in TRIGGERS)})"
    r"|PUBLICATION - kryonix_[a-z0-9_]+) ".encode()
)
_FULL = "No space left on device"
# Triggers and foreign keys rest while a schema is made; indexes are built with room.
_OPTIONS = {
    "session_replication_role": "replica",
    "synchronous_commit": "off",
    "maintenance_work_mem": "256MB",
}


class Archive:
    """
    An archive of `pg_dump` in a file without a name; leave its context to remove it.

    Nobody else can open what has no name, and the kernel removes it however this process ends.
    """

    def __init__(self, programs: Path, pieces: Iterable[Blob]) -> None:
        self._pg_restore = programs / "pg_restore"
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._list = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        try:
            for piece in pieces:
                self._file.write(piece)
            self._file.flush()
            self._lines = self._chosen()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *ended: object) -> None:
        self._file.close()
        self._list.close()

    def make_schema(self, address: Address, name: str) -> None:
        """
        Make one schema before the rest, which then leaves it out; nothing where it is not saved.

        Raises RestoreError.
        """
        start = re.compile(rb"^\d+; \d+ \d+ SCHEMA - " + re.escape(name.encode()) + rb" ")
        whole = self._lines
        self._lines = [line for line in whole if start.match(line)]
        if self._lines:
            self.make(address, "pre-data", 1)
        self._lines = [line for line in whole if not start.match(line)]

    def make(self, address: Address, section: str, jobs: int) -> None:
        """Make one section, ``pre-data`` or ``post-data``; raises RestoreError."""
        self._list.seek(0)
        self._list.truncate()
        self._list.write(b"\n".join(self._lines) + b"\n")
        self._list.flush()
        options = " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items())
        words: list[str | Path] = [self._pg_restore, "-d", conninfo(address, options=options)]
        words += [f"--section={section}", "--exit-on-error", f"--use-list={_path(self._list)}"]
        if jobs > 1:
            words.append(f"--jobs={jobs}")
        self._run([*words, _path(self._file)], f"{address.shown}: its schema ({section})")

    def _chosen(self) -> list[bytes]:
        lines = self._run([self._pg_restore, "--list", _path(self._file)], "the saved schema")
        return [line for line in lines.split(b"\n") if not _OURS.match(line)]

    def _run(self, words: list[str | Path], what: str) -> bytes:
        files = [self._file.fileno(), self._list.fileno()]
        with Program(words, env=environment(), writes=True, files=files) as program:
            try:
                return program.read_all()
            except SourceError as error:
                full = _FULL in error.message
                ours = TargetFull if full else RestoreError
                raise ours(f"{what} cannot be made: {error.message}") from error


def _path(file: IO[bytes]) -> str:
    """Where a program that was given the file finds it."""
    return f"/dev/fd/{file.fileno()}"
