"""A cluster that is one tenant's own, and clusters restored from its backups."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from kryonix_backup.model import BackupKind, ChainId, Entry, LogHeader, SourceName
from kryonix_backup.repository.snapshot import SourceResult
from kryonix_backup.restore.plan import RestoreRequest
from kryonix_backup.restore.selection import Selection
from kryonix_backup.sdk.client import Client
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.postgres.physical.address import SLOT, ClusterAddress
from kryonix_backup.sources.postgres.physical.cluster import PhysicalSource
from kryonix_backup.sources.postgres.physical.log import PhysicalLog
from kryonix_backup.sources.postgres.physical.programs import Account
from kryonix_backup.sources.source import LogPiece
from kryonix_backup.testing.postgres import PostgresServer, new_folder
from kryonix_backup.testing.sources import GivenContent
from tests.sources.postgres.engine import tenant_of


class Owned:
    """The cluster, the tenant, and ways to ask both."""

    client: Client

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.url = f"postgresql+physical://postgres@127.0.0.1:{server.port}/"
        self.address = ClusterAddress.parse(self.url)

    def anew(self, work: Path, *, empty: bool = True) -> Owned:
        """Another repository, and an empty table."""
        self.client = tenant_of(self.url, work)
        if empty:
            self.run("drop table if exists t", "create table t (a int primary key, b text)")
        return self

    @property
    def source(self) -> PhysicalSource:
        """The adapter."""
        return PhysicalSource(SourceSettings(SourceName("db"), self.url))

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements, each a transaction; the rows of the last one."""
        with self.server.connect() as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[Any]:
        """What is in the column a."""
        return [row[0] for row in self.run("select a from t order by a")]

    def now(self) -> datetime:
        """The time by the server's clock."""
        ((moment,),) = self.run("select clock_timestamp()")
        assert isinstance(moment, datetime)
        return moment

    def committed(self, a: int) -> datetime:
        """When a row was committed, to the microsecond."""
        ((moment,),) = self.run(f"select pg_xact_commit_timestamp(xmin) from t where a = {a}")
        assert isinstance(moment, datetime)
        return moment

    def drop_slot(self) -> None:
        """As if nothing had been prepared."""
        self.run(f"select pg_drop_replication_slot('{SLOT}') from pg_replication_slots"
                 f" where slot_name = '{SLOT}'")  # fmt: skip

    def prepare(self) -> None:
        """Let the server keep its log."""
        self.source.prepare(False)

    def backup(self, kind: str = "full") -> SourceResult:
        """Back up; what the snapshot says of the cluster."""
        report = self.client.backup(kind=BackupKind(kind))
        assert not report.to_plain()["problems"]
        return report.snapshot.sources[SourceName("db")]

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """A folder that servers may use, which tests' own are not."""
        server = new_folder(self.server.major)
        try:
            yield server.folder
        finally:
            server.remove()

    @contextmanager
    def restored(self, **request: Any) -> Iterator[PostgresServer]:
        """A server that runs on what was restored."""
        server = new_folder(self.server.major)
        try:
            to = {"db": f"pgdata://{server.data}?owner=nobody"}
            report = self.client.restore(RestoreRequest(to=to, **request))
            assert report.status == "complete"
            assert os.listdir(server.folder) != []
            assert {path.name for path in server.folder.iterdir()} == {"server.log", "data"}
            server.start()
            yield server
        finally:
            server.remove()

    def restored_rows(self, **request: Any) -> list[Any]:
        """What is in the column a after a restore."""
        with self.restored(**request) as server:
            return Owned(server).rows()


class Followed:
    """The log of a cluster, and what was kept of it."""

    def __init__(self, owned: Owned, most_bytes: int = 1 << 24) -> None:
        owned.prepare()
        self.owned = owned
        self.log = PhysicalLog(owned.address, most_bytes=most_bytes)
        self.opening = self.last = self.begin()
        self.kept: list[tuple[LogHeader, bytes]] = []

    def begin(self, *, renew: bool = False) -> LogHeader:
        """The opening segment of a chain."""
        return self.log.new_chain(renew=renew)._replace(chain=ChainId("chain"))

    def drain(self, *, confirm: bool = True) -> list[LogPiece]:
        """Everything that was committed by now, kept; its pieces."""
        with self.log.follow(self.opening, self.last) as stream:
            pieces = self.keep(stream.pieces(lambda: True, 60.0))
            if confirm:
                stream.confirm(self.last.end)
        return pieces

    def keep(self, pieces: Iterable[LogPiece]) -> list[LogPiece]:
        """Keep these; all of them."""
        kept = []
        for piece in pieces:
            assert piece.header is not None
            self.last = piece.header
            self.kept.append((piece.header, piece.body))
            kept.append(piece)
        return kept

    def slot(self) -> int:
        """Where the slot stands."""
        ((start,),) = self.owned.run(
            f"select restart_lsn - '0/0' from pg_replication_slots where slot_name = '{SLOT}'"
        )
        return int(start)


def account() -> Account:
    """Whose files servers of tests have."""
    if os.geteuid():
        return Account(os.geteuid(), os.getegid())
    found = pwd.getpwnam("nobody")
    return Account(found.pw_uid, found.pw_gid)


def copied(folder: Path, to: Path) -> None:
    """A copy of a folder with its owners."""
    shutil.copytree(folder, to)
    for path in (to, *to.rglob("*")):
        account().give(path)


def content_of(owned: Owned) -> list[tuple[Entry, bytes]]:
    """Everything in the newest snapshot."""
    repository = owned.client.repository
    source = repository.snapshot("latest").sources[SourceName("db")]
    return [
        (entry, b"".join(bytes(piece) for piece in pieces))
        for entry, pieces in Selection(repository, source, ()).contents()
    ]


def given(items: Iterable[tuple[Entry, bytes]]) -> GivenContent:
    """These entries, to be read once."""
    return GivenContent((entry, [body]) for entry, body in items)
