"""
Whether a database comes back as PostgreSQL's own recovery brings it back, at random moments.

A mixed load runs on a server whose WAL is archived, while the log of the database is fetched. Then,
for each moment, the whole cluster is recovered to it from a base backup by the server itself, and
the database restored to it by us; every table must hold the same rows.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psycopg

from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.client import Client, RestoreRequest
from kryonix_backup.testing.postgres import PostgresServer, new_folder, start_postgres
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored, tenant_of

_SCHEMA = """
create table keyed (id int primary key, n int, wide text);
alter table keyed alter wide set storage external;
create table loose (a int, b text);
create table referring (id serial primary key, at timestamptz default clock_timestamp());
insert into keyed select g, 0, repeat(md5(g::text), 100) from generate_series(1, 2000) g;
insert into loose select g % 7, 'b' || g % 3 from generate_series(1, 2000) g;
"""
# How often, and what.
_TRANSACTIONS = (
    (30, "update keyed set n = n + 1 where id = {one}"),
    (10, "update keyed set id = {other} where id = {one}"),
    (10, "delete from keyed where id = {one}"),
    (20, ("insert into keyed values ({one}, 1, repeat('w', {other})) on conflict (id)"
         " do update set wide = excluded.wide")),
    (10, "update loose set b = b || '{seven}' where a = {seven} and length(b) < {nine}"),
    (10, "insert into loose select {seven}, 'b' from generate_series(1, 3)"),
    (5, "delete from loose where ctid in (select ctid from loose limit {nine})"),
    (20, "insert into referring default values"),
    (5, ("begin; delete from keyed where id < {nine}; savepoint s; delete from keyed where id <"
        " {other}; rollback to s; insert into loose values ({seven}, null); {end}")),
    (3, ("begin; insert into loose values (99, 'two phases {one}'); prepare transaction 'of {me}';"
        " commit prepared 'of {me}'")),
    (1, "create table if not exists made_{me} (id int primary key, x text)"),
    (3, "insert into made_{me} values ({one}, 'x') on conflict do nothing"),
    (1, "alter table made_{me} add column c_{one} int default {other}"),
    (1, "drop table if exists made_{me}"),
    (1, "begin; truncate loose; insert into loose values (1, 'anew'); {end}"),
    (1, "create table copied_{me} as select * from keyed where id < {one}"),
    (1, "drop table copied_{me}"),
    (1, "insert into loose select g, 'many' from generate_series(1, {other}) g"),
)  # fmt: skip
_LOADERS = 4
_INCREMENTAL = 0.3  # of the times that the log is fetched
_CALM = 10  # the first so many lock no whole table, which a backup would not bear
_MOST_IDS = 3000
_PROCESSES = 300.0  # seconds that a server may take to recover


class Load:
    """Clients that do everything at once, until they are told to stop."""

    def __init__(self, server: PostgresServer, database: str, seed: int) -> None:
        self._server = server
        self._database = database
        self._seed = seed
        self._over = threading.Event()
        self.everything = threading.Event()
        """Whether tables are emptied and the schema is changed too."""
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(_LOADERS)
        ]
        self.done = 0

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        with self._server.connect(self._database) as connection:
            while not self._over.is_set():
                try:
                    for statement in self._transaction(chance, number):
                        connection.execute(statement.encode())
                    self.done += 1
                except psycopg.Error:  # two of them got into each other's way
                    connection.rollback()

    def _transaction(self, chance: random.Random, number: int) -> list[str]:
        one, other = chance.randrange(_MOST_IDS), chance.randrange(_MOST_IDS)
        values = {
            "me": number, "one": one, "other": other, "seven": one % 7, "nine": one % 9,
            "end": chance.choice(["commit", "rollback"]),
        }  # fmt: skip
        kinds = _TRANSACTIONS if self.everything.is_set() else _TRANSACTIONS[:_CALM]
        (chosen,) = chance.choices(kinds, [weight for weight, _ in kinds])
        return [statement.format(**values) for statement in chosen[1].split("; ")]


class Moments:
    """A server that has lived through a load, and what is needed to go back in it."""

    def __init__(self, major: int, work: Path, seed: int, seconds: float) -> None:
        self._work = work
        self._chance = random.Random(seed)
        # Beside the data directory, which is where the command runs, and belongs to the server.
        command = "mkdir -p ../archive && cp %p ../archive/%f"
        self.server = start_postgres(major, {"archive_mode": "on", "archive_command": command})
        self._archive = self.server.folder / "archive"
        self._base = self._work / "base"
        self.database = "lived"
        self.incrementals = self.folded = 0
        try:
            self._live(seed, seconds)
        except BaseException:
            self.server.remove()
            raise

    def _live(self, seed: int, seconds: float) -> None:
        server = self.server
        server.run("createdb", self.database)
        with server.connect(self.database) as connection:
            connection.execute(_SCHEMA)
        self.client: Client = tenant_of(server.url(self.database), self._work, self.database)
        self.client.prepare_source("db", consent=True)
        server.run("pg_basebackup", "-D", str(self._base), "-c", "fast", "-X", "none")
        with Load(server, self.database, seed) as load:
            time.sleep(seconds / 10)
            self.client.backup()
            load.everything.set()
            self.begin = self._now()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self._keep()
            self.end = self._now()
        self.transactions = load.done
        with server.connect(self.database) as connection:
            connection.execute("select pg_switch_wal()")
        self.client.back_up_logs()
        self._await_archive()

    def _keep(self) -> None:
        """Fetch the log; now and then an incremental backup does, and folds it."""
        if self._chance.random() < _INCREMENTAL:
            report = self.client.backup(kind=BackupKind.INCREMENTAL)
            why = report.to_plain()["sources"]["db"]["why"]
            assert not why, why
            self.incrementals += 1
        else:
            self.client.back_up_logs()

    def _now(self) -> datetime:
        with self.server.connect() as connection:
            row = connection.execute("select clock_timestamp()").fetchone()
        assert row is not None
        assert isinstance(row[0], datetime)
        return row[0]

    def _await_archive(self) -> None:
        with self.server.connect() as connection:
            deadline = time.monotonic() + _PROCESSES
            while time.monotonic() < deadline:
                row = connection.execute(
                    "select last_archived_wal >= (select max(name) from pg_ls_waldir()"
                    " where name ~ '^[0-9A-F]{24}$' and name < pg_walfile_name("
                    "pg_current_wal_lsn())) from pg_stat_archiver"
                ).fetchone()
                if row and row[0]:
                    return
                time.sleep(0.1)
        raise RuntimeError("the server did not archive its WAL")

    def some(self) -> datetime:
        """A moment between the full backup and the end, to the microsecond."""
        return self.begin + timedelta(
            microseconds=self._chance.randrange(
                (self.end - self.begin) // timedelta(microseconds=1)
            )
        )

    def differences(self, moment: datetime) -> dict[str, object]:
        """What differs between the server's own recovery to that moment and our restore."""
        recovered = new_folder(self.server.major)
        try:
            shutil.copytree(self._base, recovered.data)
            (recovered.data / "recovery.signal").touch()
            for path in [recovered.data, *recovered.data.rglob("*")]:
                shutil.chown(path, recovered.folder.owner(), recovered.folder.group())
            recovered.settings.update({
                "restore_command": f"cp {self._archive}/%f %p", "hot_standby": "off",
                "recovery_target_time": moment.isoformat(), "recovery_target_action": "promote",
            })  # fmt: skip
            recovered.start()
            truth = rich.digest(recovered, self.database)
        finally:
            recovered.remove()
        plan = self.client.plan_restore(RestoreRequest(at=moment))
        self.folded += self.client.snapshot(plan.snapshot).kind is BackupKind.INCREMENTAL
        restored(self.client, self.server.url("then"), at=moment, overwrite=True)
        ours = rich.digest(self.server, "then")
        return {
            name: (truth.get(name), ours.get(name))
            for name in truth.keys() | ours.keys()
            if truth.get(name) != ours.get(name)
        }


class Looked(NamedTuple):
    """How many moments were looked at, how many of them from an incremental backup, and of what."""

    moments: int
    folded: int
    incrementals: int
    transactions: int


def moments(work: Path, major: int, seed: int, seconds: float, targets: int) -> Looked:
    """Look at so many moments of a load that ran so long; raises AssertionError."""
    lived = Moments(major, work, seed, seconds)
    try:
        for _ in range(targets):
            moment = lived.some()
            assert not (found := lived.differences(moment)), (moment, found)
        return Looked(targets, lived.folded, lived.incrementals, lived.transactions)
    finally:
        lived.server.remove()
