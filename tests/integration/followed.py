"""A tenant whose database's log is kept, and what of it is in the repository."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from kryonix_backup.backup.follow import LogReport
from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.model import LogHeader, SourceName, TenantId, Tier
from kryonix_backup.sdk.client import Client
from kryonix_backup.settings import (
    PRIMARY,
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)
from kryonix_backup.sources.postgres.server.address import slot_name
from kryonix_backup.testing.postgres import PostgresServer
from tests.sources.postgres.engine import restored
from tests.sources.postgres.log import changes

DB = SourceName("db")
KEY = RootKey(key_file=Secret(b"a key that only tests have, 32 bytes or more"))


class Acme:
    """The tenant acme with the database ``acme``, on a server that may become another one."""

    def __init__(
        self,
        server: PostgresServer,
        repository: Path,
        *,
        user: str = "postgres",
        database: str = "acme",
        clock: Clock | None = None,
    ) -> None:
        self.server, self.repository = server, repository
        self.user, self.database = user, database
        self.slot = slot_name(database)
        self.clock = clock or SystemClock()

    @property
    def client(self) -> Client:
        """The tenant as a new process sees it."""
        region = RegionSettings(PRIMARY, f"file://{self.repository}")
        source = SourceSettings(DB, self.server.url(self.database, self.user))
        settings = TenantSettings(TenantId("acme"), Tier("standard"), (region,), (source,))
        if not self.repository.exists():
            return Client.onboard(settings, KEY, clock=self.clock)
        return Client(settings, KEY, clock=self.clock)

    def begin(self) -> None:
        """Make the database with the table ``t``, keep its log, take a full backup."""
        with self.server.connect() as connection:
            connection.execute(f'create database "{self.database}"')
        self.run("create table t (a int primary key, b text)")
        self.client.prepare_source(DB, consent=True)
        self.drain()
        self.client.backup()

    def run(self, *statements: str, database: str = "") -> list[Any]:
        """Run statements, each a transaction; the rows of the last."""
        with self.server.connect(database or self.database) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def now(self) -> datetime:
        """What the server's clock says."""
        ((moment,),) = self.run("set datestyle = iso", "select clock_timestamp()")
        assert isinstance(moment, datetime)
        return moment

    def drain(self) -> LogReport:
        """Keep what is in the log by now."""
        return self.client.back_up_logs()[DB]

    def headers(self) -> list[LogHeader]:
        """Every segment that is kept."""
        book = self.client.repository.log(DB)
        return [
            book.header(chain, number)
            for chain, count in book.chains().items()
            for number in range(count)
        ]

    def kept(self) -> list[str]:
        """What happened to the tables, of all that is kept."""
        book = self.client.repository.log(DB)
        found: list[str] = []
        for header in self.headers():
            _, body = book.segment(header.chain, header.number)
            found += changes(b"".join(bytes(piece) for piece in body))
        return found

    def whole(self) -> bool:
        """Whether all that is kept is one chain without a gap."""
        headers = self.headers()
        goes_on = [before.end == after.start for before, after in pairwise(headers)]
        return len({header.chain for header in headers}) == 1 and all(goes_on)

    def confirmed(self) -> int:
        """What the server believes to be kept."""
        ((place,),) = self.run(
            "select confirmed_flush_lsn - '0/0'::pg_lsn from pg_replication_slots"
            f" where slot_name = '{self.slot}'"
        )
        return int(place)

    def restored(
        self, at: datetime, name: str = "", *, server: PostgresServer | None = None
    ) -> str:
        """The name of a new database as it was at that moment."""
        target = name or f"{self.database}_then"
        restored(self.client, (server or self.server).url(target), at=at)
        return target
