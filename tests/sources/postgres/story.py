"""Databases that live through something, and what was in them at some moments."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.client import Client, RestoreRequest
from kryonix_backup.settings import PRIMARY, RegionSettings
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres import rich
from tests.sources.postgres.engine import ROOT, restored, tenant_of

KEYED = "create table keyed (id int primary key, a text, b text)"
LOOSE = "create table loose (a int, b text)"


class Load(NamedTuple):
    """
    What a database lives through: statements before the full backup, then two series of parts.

    Each statement of a part is a transaction; before the last part of a series there is an
    incremental backup.
    """

    before: tuple[str, ...]
    series: tuple[tuple[tuple[str, ...], ...], ...]


ROWS = Load(
    (
        KEYED, LOOSE,
        "alter table keyed alter b set storage external",
        ("insert into keyed select g, 'a' || g, repeat(md5(g::text), 200)"
        " from generate_series(1, 50) g"),
        "insert into loose select g % 5, 'b' from generate_series(1, 50) g",
    ),
    (
        (
            ("insert into keyed values (100, null, E'\\t\\\\N\\n')",
             "insert into loose values (null, null)"),
            ("update keyed set a = 'new' where id < 10", "update loose set b = 'c' where a = 1",
             "update keyed set id = id + 1000 where id between 10 and 20",
             "update keyed set a = 'moved' where id = 1011"),
            ("update keyed set id = -id; update keyed set id = -id where id = -5",),
        ),
        (
            ("delete from keyed where id = -7", "insert into keyed values (-7, 'again', 'x')",
             ("update keyed set id = 9999 where id = -1; update keyed set id = -1 where id = -2;"
              " update keyed set id = -2 where id = 9999")),
            ("delete from loose where ctid in (select ctid from loose where a = 2 limit 3)",
             "begin; savepoint s; delete from keyed; rollback to s; delete from loose; commit"),
            ("truncate keyed; insert into keyed values (1, 'after', 'truncate')",),
            ("insert into loose select 1, 'b' from generate_series(1, 3)", "truncate loose, keyed",
             "insert into keyed values (1, 'after', 'truncate')"),
        ),
    ),
)  # fmt: skip
CHANGES_OF_THE_SCHEMA = Load(
    (KEYED, "insert into keyed select g, 'a', 'b' from generate_series(1, 9) g"),
    (
        (
            ("alter table keyed add column c int not null default 7",
             "update keyed set c = id where id > 5",
             "create table copied as select id, c from keyed", "insert into copied values (1, 2)"),
            ("begin", "create table mixed (m int)", "insert into mixed values (1)",
             "alter table mixed add n text default 'z'", "insert into mixed values (2, 'y')",
             "commit", "alter table keyed rename a to renamed",
             "update keyed set renamed = 'r' where id = 1"),
            ("create table parts (d date) partition by range (d)",
             "create table one partition of parts for values from ('2026-01-01') to ('2027-01-01')",
             "insert into parts values ('2026-02-03')", "drop table copied"),
        ),
        (
            ("create table added (x int primary key, y timestamptz default now())",
             "insert into added select generate_series(1, 5)", "truncate mixed"),
            ("alter table keyed drop column b", "insert into keyed values (77, 'q', 3)",
             "drop table added", "create index on keyed (renamed)",
             "create view seen as select * from keyed"),
            ("insert into parts values ('2026-03-04')", "create schema apart",
             "set search_path = apart", "create table inner_one (i serial primary key)",
             "insert into apart.inner_one default values"),
        ),
    ),
)  # fmt: skip
EVERYTHING = Load(
    (),  # but what `rich.fill` makes
    (
        (
            ("update crm.customer set name = name || '!', seen = now() where id % 3 = 0",),
            ("delete from crm.customer where id < 10",
             'update crm."Order %.item" set "Note" = null'),
            ("insert into crm.event values ('2027-01-01', 'new'), ('2020-01-01', 'old')",
             "update crm.event set at = '2019-01-01' where what = 'new'",
             "insert into crm.nothing default values", "insert into crm.child values (3, 'x')"),
            ("insert into crm.child values (4, 'y')",),
        ),
    ),
)  # fmt: skip


class Story:
    """A database with backups and a log, and what was in it at some moments."""

    def __init__(self, server: PostgresServer, work: Path) -> None:
        self.server = server
        self.work = work
        self.database = new_database(server)
        self.client: Client = tenant_of(server.url(self.database), work, self.database)
        self.moments: list[tuple[datetime, dict[str, tuple[int, str]], str]] = []

    def begin(self) -> None:
        """Keep the log from here on, and take the full backup."""
        self.client.prepare_source("db", consent=True)
        self.client.back_up_logs()
        self.client.backup()
        self.client.back_up_logs()

    def run(self, *statements: str) -> None:
        """Run statements, each a transaction."""
        with self.server.connect(self.database) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def remember(self) -> datetime:
        """What is in the database at this moment."""
        with self.server.connect(self.database) as connection:
            row = connection.execute("select clock_timestamp()").fetchone()
        assert row is not None
        moment = row[0]
        assert isinstance(moment, datetime)
        digest = rich.digest(self.server, self.database)
        self.moments.append((moment, digest, rich.schema(self.server, self.database)))
        return moment

    def tell(self, *parts: tuple[str, ...]) -> None:
        """Run each part, and remember what was there after it; then keep the log."""
        for part in parts:
            self.run(*part)
            self.remember()
        self.run("select 1")
        self.client.back_up_logs()

    def restored_at(self, moment: datetime, name: str = "") -> str:
        """The name of a database that was restored to that moment."""
        target = name or f"{self.database}_then"
        restored(self.client, self.server.url(target), at=moment, overwrite=True)
        return target

    def prove(self) -> None:
        """Every remembered moment can be had again, rows and schema alike."""
        for moment in self.moments:
            self.prove_one(*moment)

    def prove_one(self, moment: datetime, digest: dict[str, tuple[int, str]], schema: str) -> None:
        """That moment can be had again."""
        target = self.restored_at(moment)
        found = rich.digest(self.server, target)
        differing = {
            name: (digest.get(name), found.get(name))
            for name in digest.keys() | found.keys()
            if digest.get(name) != found.get(name)
        }
        assert not differing, moment
        assert without_ours(rich.schema(self.server, target)) == without_ours(schema)

    def incremental(self) -> dict[str, Any]:
        """Take one; what its report says of the database."""
        report = self.client.backup(kind=BackupKind.INCREMENTAL).to_plain()
        said: dict[str, Any] = report["sources"]["db"]
        return said

    def increment(self, *parts: tuple[str, ...]) -> None:
        """
        Run each part, with an incremental backup before the last.

        What was there before the backup and after the last part is remembered.
        """
        for part in parts[:-1]:
            self.run(*part)
        self.remember()
        said = self.incremental()
        assert (said["kind"], said["why"]) == ("incremental", "")
        self.run(*parts[-1])
        self.remember()
        self.client.back_up_logs()

    def chosen_at(self, moment: datetime) -> str:
        """The kind of the snapshot that a plan for that moment takes."""
        plan = self.client.plan_restore(RestoreRequest(at=moment))
        return self.client.snapshot(plan.snapshot).kind.value

    def prove_snapshot(self, digest: dict[str, tuple[int, str]], schema: str) -> None:
        """The newest snapshot by itself holds that."""
        target = f"{self.database}_alone"
        restored(self.client, self.server.url(target), overwrite=True)
        assert rich.digest(self.server, target) == digest
        assert without_ours(rich.schema(self.server, target)) == without_ours(schema)

    def live(self, load: Load) -> None:
        """Live through a load, and remember what was there after each part of it."""
        self.run(*load.before)
        self.begin()
        for series in load.series:
            for part in series[:-2]:
                self.run(*part)
                self.remember()
            self.increment(*series[-2:])

    def without_incrementals(self) -> Story:
        """The same, with a copy of the repository that has none of the incremental backups."""
        found = Story.__new__(Story)
        found.__dict__.update(self.__dict__)
        found.work = self.work / "full"
        region = found.work / self.database
        shutil.copytree(self.work / self.database, region)
        for snapshot in self.client.snapshots():
            if snapshot.kind is BackupKind.INCREMENTAL:
                (region / "snapshots" / snapshot.id).unlink()
        regions = (RegionSettings(PRIMARY, f"file://{region}"),)
        found.client = Client(replace(self.client.settings, regions=regions), ROOT)
        return found


def without_ours(schema: str) -> list[str]:
    """The statements of a dump, but for those about what `prepare` made."""
    lines = [line for line in schema.splitlines() if line and not line.startswith(("--", "SET "))]
    statements = "\n".join(lines).split(";\n")
    ours = ("kryonix", "REPLICA IDENTITY FULL")
    return [each.rstrip(";\n") for each in statements if not any(o in each for o in ours)]
