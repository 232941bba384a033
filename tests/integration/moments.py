"""
Whether a database comes back as PostgreSQL's own recovery brings it back, at random moments.

A mixed load runs on a server whose WAL is archived, while the log of the database is fetched, or
followed by a process that is killed again and again. Then, for each moment, the whole cluster is
recovered to it from a base backup by the server itself, and the database restored to it by us:
every table must hold the same rows, and the schema must be the same. Large objects, which are in no
log, must be those of the moment that the restore says, to the last byte: the server is recovered to
that one too.
"""

from __future__ import annotations

import logging
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from kryonix_backup.errors import SourceUnavailable
from kryonix_backup.model import BackupKind, SourceName
from kryonix_backup.sdk.client import BackupReport, Client, RestoreRequest
from kryonix_backup.testing.postgres import PostgresServer, new_folder, start_postgres
from tests.integration import mixed_load
from tests.integration.command import Command
from tests.integration.killed_follower import KilledFollower
from tests.integration.mixed_load import Load
from tests.sources.postgres import rich
from tests.sources.postgres.engine import KEY, restored, tenant_of
from tests.sources.postgres.log import frames
from tests.sources.postgres.story import without_ours

DATABASE = "lived"
_DB = SourceName("db")
_INCREMENTAL = 0.3  # of the times that the log is fetched, an incremental backup does
_BETWEEN_KILLS = 0.15
_OBJECTS_AFTER = 0.3  # of the time, there are no large objects
_NEAR_A_KILL_S = 1.5
_PROCESSES = 600.0  # seconds that a server may take to archive or to recover
_LEAST = timedelta(microseconds=1)
_UNSEEN = timedelta(milliseconds=50)  # a commit is seen by all when it is on disk
ANY, COMMIT, SHARED, BEFORE, BACKUP, KILL = (
    "at any time", "of a commit", "of several commits at once", "just before a commit",
    "just after a backup", "around a kill",
)  # fmt: skip

PEAK = "MiB the follower took at most"

Digest = dict[str, tuple[int, str]]


class Life(NamedTuple):
    """
    What a server goes through: a load for so many seconds, or until a follower was killed so often.

    ``large`` transactions of ``many`` rows are among it.
    """

    seed: int
    seconds: float
    many: int
    large: int
    kills: int = 0


class Moment(NamedTuple):
    """A moment to go back to, and why that one."""

    at: datetime
    kind: str


class Moments:
    """A server that has lived through a load, and what is needed to go back in it."""

    def __init__(self, major: int, work: Path, life: Life) -> None:
        self._work = work
        self._life = life
        self._chance = random.Random(life.seed)
        # Beside the data directory, which is where the command runs, and belongs to the server.
        command = "mkdir -p ../archive && cp %p ../archive/%f"
        self.server = start_postgres(major, {"archive_mode": "on", "archive_command": command})
        self._archive = self.server.folder / "archive"
        self._base = self._work / "base"
        self._quiet: list[datetime] = []
        self._has_objects = False
        self.follower: KilledFollower | None = None
        self.found: Counter[str] = Counter()
        try:
            self._live()
        except BaseException:
            self.server.remove()
            raise

    # ------------------------------------------------------------------ its life

    def _live(self) -> None:
        server, life = self.server, self._life
        server.run("createdb", DATABASE)
        with server.connect(DATABASE) as connection:
            connection.execute(mixed_load.SCHEMA)
        server.run("pgbench", "-i", "-q", DATABASE)
        self.client: Client = tenant_of(server.url(DATABASE), self._work, DATABASE)
        self.client.prepare_source("db", consent=True)
        server.run("pg_basebackup", "-D", str(self._base), "-c", "fast", "-X", "none")
        with Load(server, DATABASE, life.seed, life.many) as load:
            time.sleep(min(life.seconds / 10, 2.0))
            self._full(load, BackupKind.FULL)
            load.do_everything()
            self.begin = self._now()
            self._go_on(load)
            self.end = self._now()
        self.found.update({"transactions": load.done, "of very many rows": load.large})
        with server.connect(DATABASE) as connection:
            connection.execute("select pg_switch_wal()")
        self.client.back_up_logs()
        self._await_archive()
        self.check_log()

    def _go_on(self, load: Load) -> None:
        """Until the life is over: what comes when goes by how much of it is over."""
        asked = 0
        for part in self._parts():
            if part * (self._life.large + 1) > asked + 1:
                asked += 1
                load.change_many()
            if part > _OBJECTS_AFTER and not self._has_objects:
                self._has_objects = True
                load.change_objects()
            if self.follower is None:
                self._keep(load)
            else:
                self.follower.kill_one()
                if self._chance.random() < _BETWEEN_KILLS:
                    self._keep(load)

    def _parts(self) -> Iterator[float]:
        if self._life.kills:
            command = Command(self._work / "home", {}, KEY)
            command.home.mkdir()
            (command.home / "key").write_bytes(KEY)
            region = self._work / DATABASE
            command.run("tenant", "add", DATABASE, "--region", f"primary=file://{region}",
                        "--source", f"db={self.server.url(DATABASE)}")  # fmt: skip
            self.follower = KilledFollower(command, DATABASE, region, self._chance)
            for number in range(self._life.kills):
                yield number / self._life.kills
            return
        start = time.monotonic()
        while (past := time.monotonic() - start) < self._life.seconds:
            yield past / self._life.seconds

    def _keep(self, load: Load) -> None:
        """Fetch the log; now and then an incremental backup does, and folds it."""
        if self._chance.random() >= _INCREMENTAL:
            self.client.back_up_logs()
            return
        try:
            self._count(self.client.backup(kind=BackupKind.INCREMENTAL))
        except SourceUnavailable:  # it had to be a full one, and a table was emptied meanwhile
            self._full(load, BackupKind.INCREMENTAL)

    def _full(self, load: Load, kind: BackupKind) -> None:
        """A backup that reads everything, or may do so; the large objects are those of now."""
        with load.objects_held(), load.calm():
            report = self.client.backup(kind=kind)
            self._count(report)
            self._quiet.append(self._now())

    def _count(self, report: BackupReport) -> None:
        said: dict[str, Any] = report.to_plain()["sources"]["db"]
        self.found[f"{said['kind']} backups"] += 1
        if why := said["why"]:
            assert "would make a restore take" in why, why
            self.found["of these because of its changes"] += 1

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

    def check_log(self) -> None:
        """One chain without a gap, in which every commit is there once, in the order of the log."""
        book = self.client.repository.log(_DB)
        ((chain, count),) = book.chains().items()
        headers = [book.header(chain, number) for number in range(count)]
        assert all(before.end == after.start for before, after in pairwise(headers))
        newest = commits = 0
        for number in range(1, count):
            _, body = book.segment(chain, number)
            for frame in frames(b"".join(bytes(piece) for piece in body)):
                if frame[:1] == b"C":
                    commits += 1
                    end = int.from_bytes(frame[10:18])
                    assert end > newest, f"segment {number} repeats a commit"
                    newest = end
        self.found.update({"segments": count, "commits in them": commits})
        log = self.client.restorable()[_DB]
        assert log.holds(self.begin), log
        assert log.holds(self.end), log

    # ------------------------------------------------------------------ and back in it

    def some(self, count: int) -> Iterator[Moment]:
        """Moments between the first full backup and the end, of every kind by turns."""
        commits = [
            (time, number)
            for time, number in mixed_load.commit_times(self.server, DATABASE)
            if self.begin < time <= self.end
        ]
        shared = [time for time, number in commits if number > 1]
        self.found["microseconds with several commits"] = len(shared)
        of_each = {
            COMMIT: [time for time, _ in commits],
            SHARED: shared,
            BEFORE: [time - _LEAST for time, _ in commits],
            BACKUP: self._quiet,
            KILL: [*self._around_kills()],
        }
        kinds = [ANY, KILL] if self.follower else [ANY]
        kinds += [ANY, SHARED, COMMIT, BACKUP, ANY, BEFORE]
        for number in range(count):
            kind = kinds[number % len(kinds)]
            if of_each.get(kind):
                yield Moment(self._chance.choice(of_each[kind]), kind)
            else:
                span = (self.end - self.begin) // _LEAST
                yield Moment(self.begin + self._chance.randrange(span) * _LEAST, ANY)

    def _around_kills(self) -> Iterator[datetime]:
        for kill in self.follower.kills if self.follower else ():
            for least, most in ((-_NEAR_A_KILL_S, 0.0), (0.0, _NEAR_A_KILL_S)):
                moment = kill + timedelta(seconds=self._chance.uniform(least, most))
                if self.begin < moment < self.end:
                    yield moment

    def differences(self, moment: Moment) -> dict[str, object]:
        """What differs between the server's own recovery to that moment and our restore."""
        plan = self.client.plan_restore(RestoreRequest(at=moment.at))
        folded = self.client.snapshot(plan.snapshot).kind is BackupKind.INCREMENTAL
        with _told_times() as told:
            restored(self.client, self.server.url("then"), at=moment.at, overwrite=True)
        objects = rich.large_objects(self.server, "then")
        expected: Digest = {}
        for said in told:
            assert said <= moment.at
            expected = self._objects_at(said, objects)
            age = "large objects at most so many seconds old"
            self.found[age] = max(self.found[age], round((moment.at - said).total_seconds()))
        with self._recovered(moment.at) as recovered:
            truth, ours = rich.rows(recovered, DATABASE), rich.rows(self.server, "then")
            schemas = [
                without_ours(rich.schema(server, name))
                for server, name in ((recovered, DATABASE), (self.server, "then"))
            ]
        self.found["moments with large objects"] += len(told)
        self.found.update({"moments": 1, f"moments {moment.kind}": 1, "from a folded log": folded})
        found: dict[str, object] = {
            name: (truth.get(name), ours.get(name))
            for name in truth.keys() | ours.keys()
            if truth.get(name) != ours.get(name)
        }
        if objects != expected:
            found["large objects"] = (expected, objects)
        if schemas[0] != schemas[1]:
            found["schema"] = [sorted(set(one) ^ set(other)) for one, other in [schemas]]
        return found

    def _objects_at(self, said: datetime, ours: Digest) -> Digest:
        """
        What the large objects were by then, in the state of ours where they had two just then.

        A commit has its time a little before anybody sees it, and a sample is what is seen.
        """
        with self._recovered(said) as recovered:
            expected = rich.large_objects(recovered, DATABASE)
        if ours == expected:
            return expected
        with self._recovered(said - _UNSEEN) as recovered:
            before = rich.large_objects(recovered, DATABASE)
        unseen = {name for name in before.keys() | ours.keys() | expected.keys()
                  if expected.get(name) != ours.get(name) == before.get(name)}  # fmt: skip
        self.found["large objects whose commit nobody saw yet"] += len(unseen)
        kept = {name: each for name, each in expected.items() if name not in unseen}
        return kept | {name: before[name] for name in unseen if name in before}

    @contextmanager
    def _recovered(self, moment: datetime) -> Iterator[PostgresServer]:
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
            recovered.start(_PROCESSES)
            yield recovered
        finally:
            recovered.remove()


@contextmanager
def _told_times() -> Iterator[list[datetime]]:
    """Of when the large objects are of a restore meanwhile, as it says."""
    told: list[datetime] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found = re.search(r"its large objects are as of (\S+), ", record.getMessage())
            if found:
                told.append(datetime.fromisoformat(found[1]))

    listener = Listener()
    logging.getLogger("kryonix_backup").addHandler(listener)
    try:
        yield told
    finally:
        logging.getLogger("kryonix_backup").removeHandler(listener)


def _quiet(_text: str) -> None:
    """Tell nobody."""


def moments(
    work: Path, major: int, life: Life, targets: int, tell: Callable[[str], None] = _quiet
) -> dict[str, int]:
    """Look at so many moments of a life; what there was of each. Raises AssertionError."""
    lived = Moments(major, work, life)
    try:
        for moment in lived.some(targets):
            started = time.monotonic()
            found = lived.differences(moment)
            took = time.monotonic() - started
            said = f"differs: {found}" if found else "the same"
            tell(f"  {moment.at.isoformat()} {moment.kind}: {said}, {took:.0f} s")
            assert not found, (moment, found)
        if lived.follower is not None:
            lived.found["kills"] = len(lived.follower.kills)
            lived.found["kills just after a segment was stored"] = lived.follower.waited
            lived.found[PEAK] = lived.follower.peak_bytes >> 20
        return dict(lived.found)
    finally:
        lived.server.remove()
