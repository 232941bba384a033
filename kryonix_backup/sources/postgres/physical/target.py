"""A data directory as the target of a restore, ready for a server to be started in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from kryonix_backup.errors import InvalidUrl, RestoreError, TargetFull, WouldOverwrite
from kryonix_backup.model import Entry, Problem, RestoreId
from kryonix_backup.sources.postgres.physical.paths import FULL
from kryonix_backup.sources.postgres.physical.programs import Account, run, server_of
from kryonix_backup.sources.postgres.physical.recovering import Recovery, end_leftover
from kryonix_backup.sources.postgres.physical.tally import Tally
from kryonix_backup.sources.postgres.physical.writing import write_backups, write_wal
from kryonix_backup.sources.source import Content, LoadReport

_LINKS_SINCE = 18
_FORM = "Write it like pgdata:///var/lib/postgresql/18/restored, or with ?owner=ACCOUNT at its end."
_READY = "ready.json"


class PhysicalTarget:
    """
    An empty or absent directory, which becomes the data directory of the restored cluster.

    Everything is made in a directory beside it, proved there, and moved into place.
    """

    def __init__(self, url: str, restore: RestoreId) -> None:
        self._directory, self._owner = _parse(url)
        name = f".{self._directory.name}.kryonix-restore-{restore}"
        self._staging = self._directory.parent / name
        self._data = self._staging / "data"

    def prepare(self, entries: Iterable[Entry], bytes_needed: int) -> None:
        """Raise WouldOverwrite, TargetFull, RestoreError or ConfigError if it cannot work."""
        tally = Tally()
        for entry in entries:
            tally.add(entry)
        if not tally.whole:
            raise RestoreError(
                "what is to be restored is not every file of a cluster",
                "A cluster comes back whole, without --include, and nothing else into pgdata://.",
            )
        with self._explained():
            self._refuse_occupied()
            incremental = len(tally.names) > 1
            server_of(_major(tally.metas[-1]), combines=incremental)
            Account.of(self._owner, self._directory)
            free = shutil.disk_usage(_existing(self._directory)).free
            needed = bytes_needed * (2 if incremental else 1)
            if not self._staging.exists() and free < needed:
                raise TargetFull(
                    f"{self._directory} has {free} bytes of room, and {needed} are needed"
                )

    def load(self, content: Content) -> LoadReport:
        """Write the files, put the backups together, and run recovery to its end."""
        if (self._staging / _READY).exists():
            return LoadReport(**{**json.loads(self._ready.read_text())["loaded"], "problems": ()})
        with self._explained():
            account = Account.of(self._owner, self._directory)
            self._directory.parent.mkdir(parents=True, exist_ok=True)
            end_leftover(self._data)
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(0o700)
            account.give(self._staging)
            tally, loaded = write_backups(content, self._staging, account)
            meta = tally.metas[-1]
            programs = server_of(_major(meta), combines=len(tally.names) > 1)
            self._combine(tally, programs, account)
            run([programs / "pg_verifybackup", "-q", self._data], account)
            log = content.log()
            until = None
            if log is not None:
                wal = self._data / "pg_wal"
                until = write_wal(log, wal, meta["timeline"], meta["segment"], account)
            stopped = Recovery(self._data, programs, account).to(until, meta["superuser"])
            ready = {
                "loaded": {"entries": loaded.entries, "bytes": loaded.bytes},
                "stopped": stopped,
                "system": meta["system"],
                "major": _major(meta),
            }
            self._note(self._ready, ready)
        return loaded

    def compare(self, entries: Iterable[Entry]) -> list[Problem]:
        """
        What the restored cluster's control file says that is not so.

        Its files were held against the backup's checksums before recovery changed them.
        """
        with self._explained():
            if not self._ready.exists():
                raise RestoreError(f"nothing was loaded for {self._directory}")
            ready = json.loads(self._ready.read_text())
            account = Account.of(self._owner, self._directory)
            programs = server_of(ready["major"], combines=False)
            control = Recovery(self._data, programs, account).control()
        wanted = {
            "Database system identifier": ready["system"],
            "Database cluster state": "shut down",
        }
        return [
            Problem("global/pg_control", f"{name} is {control.get(name)!r} instead of {value!r}")
            for name, value in wanted.items()
            if control.get(name) != value
        ]

    def commit(self) -> None:
        """Move the data directory into place; raises WouldOverwrite where something is there."""
        with self._explained():
            if not self._data.exists():
                if self._ready.exists() and self._directory.exists():
                    return  # an earlier try has come to its end
                raise RestoreError(f"nothing was loaded for {self._directory}")
            self._refuse_occupied()
            before = self._directory.stat() if self._directory.exists() else None
            there = None if before is None else [before.st_uid, before.st_gid, before.st_mode]
            self._note(self._staging / "before.json", there)
            self._data.rename(self._directory)
            _sync(self._directory.parent)

    def roll_back(self) -> None:
        """Take the data directory out of its place again, and drop what was made."""
        with self._explained():
            if self._ready.exists() and not self._data.exists():
                self._take_out()
            end_leftover(self._data)
            shutil.rmtree(self._staging, ignore_errors=True)

    def finish(self) -> None:
        """Drop what is left beside the data directory."""
        with self._explained():
            shutil.rmtree(self._staging, ignore_errors=True)

    # ------------------------------------------------------------------ their steps

    @property
    def _ready(self) -> Path:
        return self._staging / _READY

    def _note(self, path: Path, content: Any) -> None:
        """Write a note that counts once it is there; the server has made its own files durable."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(content))
        _sync(new)
        new.rename(path)
        _sync(self._staging)

    def _combine(self, tally: Tally, programs: Path, account: Account) -> None:
        """Make one data directory of a full backup and the incremental ones."""
        backups = [self._staging / os.fsdecode(name) for name in tally.names]
        if len(backups) == 1:
            (self._staging / os.fsdecode(FULL)).rename(self._data)
            return
        linked = ["--link"] if _major(tally.metas[-1]) >= _LINKS_SINCE else []
        # The server makes everything durable before its recovery begins.
        words: list[str | Path] = [programs / "pg_combinebackup", "--no-sync", *linked, *backups]
        run([*words, "-o", self._data], account)
        for backup in backups:
            shutil.rmtree(backup)

    def _take_out(self) -> None:
        if (self._directory / "postmaster.pid").exists():
            raise RestoreError(
                f"a server runs in {self._directory}", "Stop it, then roll back again."
            )
        self._directory.rename(self._data)
        there = json.loads((self._staging / "before.json").read_text())
        if there is not None:
            uid, gid, mode = there
            self._directory.mkdir()
            os.chown(self._directory, uid, gid)
            self._directory.chmod(mode & 0o7777)

    def _refuse_occupied(self) -> None:
        if self._ready.exists() and not self._data.exists():
            return  # it is ours that is there
        if os.path.ismount(self._directory):
            raise RestoreError(
                f"{self._directory} is a mount point, which nothing can be moved onto",
                "Name a directory inside of it.",
            )
        if self._directory.exists() and any(self._directory.iterdir()):
            raise WouldOverwrite(
                f"{self._directory} is not empty",
                "Name an empty directory, or one that is not there: a cluster's files are never"
                " replaced, not even with --overwrite.",
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (28, 122)
            kind = TargetFull if full else RestoreError
            raise kind(f"{self._directory} cannot be restored to: {error.strerror}") from error


def _parse(url: str) -> tuple[Path, str | None]:
    found = urlsplit(url)
    path = unquote(found.path)
    parameters = dict(parse_qsl(found.query, keep_blank_values=True))
    owner = parameters.pop("owner", None)
    plain = found.scheme == "pgdata" and not found.netloc and not found.fragment
    if not plain or parameters or not path.startswith("/") or "\0" in path or owner == "":
        raise InvalidUrl(f"{url!r} does not name a data directory", _FORM)
    directory = Path(os.path.normpath(path))
    if directory == directory.parent:
        raise InvalidUrl(f"{url!r} does not name a data directory", _FORM)
    return directory, owner


def _major(meta: Any) -> int:
    return int(meta["version"]) // 10_000


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
