"""
Measure the log of a tenant's database and a restore to a moment, beside pg_restore and pgBackRest.

    .venv/bin/python benchmarks/postgres_log.py --scale 130 --transactions 250000 --reps 3
    .venv/bin/python benchmarks/postgres_log.py --scale 130 --transactions 250000 --tenants 10 \
        --version 15 --pgbackrest

A database of ``pgbench -i`` is prepared and backed up; then pgbench runs its own mixture of four
changes per transaction, the log is fetched at once, and the database restored to the moment after.
What comes back is compared with what is there, table by table, by a digest of all rows. With
``--tenants`` other databases of the same cluster do the same, each a share of it; with
``--pgbackrest`` the whole cluster is restored by pgBackRest to the same moment, and the one
tenant's database dumped from it. Scale 130 are about 2 GB, and take 12 GB of disk, or 20 with the
others. Prints a table in Markdown, and as JSON how the figures compare.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pgbackrest
from postgres_measure import KRYONIX, Measures, adding, environment

from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_DIGEST = "select count(*), sum(hashtextextended(t::text, 7)::numeric) from {} t"
_TABLES = [f"pgbench_{name}" for name in ("accounts", "branches", "history", "tellers")]
_STEPS = Path(__file__).with_name("postgres_steps.py")


def digest(server: PostgresServer, database: str) -> list[object]:
    """What is in the tables, whatever the order of the rows."""
    with server.connect(database) as connection:
        return [connection.execute(_DIGEST.format(name).encode()).fetchone() for name in _TABLES]


class Bench:
    """A cluster of some tenants, our repository of one of them, and what each step took."""

    def __init__(self, server: PostgresServer, work: Path, options: argparse.Namespace) -> None:
        self._server = server
        self._options = options
        self._region = work / "region"
        self._dump = work / "dump"
        self.measures = Measures(server, environment(server, work / "home"))
        self._other = (
            pgbackrest.PgBackRest(server, server.folder / "pgbackrest")
            if options.pgbackrest
            else None
        )
        self.steps: dict[str, list[float]] = {}
        self.equal = True

    def run(self) -> None:
        """Every step, the restores as often as was asked."""
        self._fill()
        self._back_up()
        moment = self._change()
        measures = self.measures
        self._server.run("psql", "-c", "checkpoint")
        measures.theirs("pg_dump -Fd -j2 -Z0 of then", "pg_dump", *self._dumping(self._dump))
        for number in range(self._options.reps):
            for restore in (self._theirs, self._ours)[:: 1 if number % 2 else -1]:
                self._server.run("psql", "-c", "checkpoint")
                restore(moment)
        if self._other is not None:
            self._cluster(self._other, moment)

    def summary(self) -> dict[str, object]:
        """How our figures compare with theirs, and with what the project wants."""
        measures, changes = self.measures, 4 * self._options.transactions
        files = (path for path in (self._region / "logs").rglob("*") if path.is_file())
        found: dict[str, object] = {
            "equal": self.equal,
            "log_bytes": sum(path.stat().st_size for path in files),
            "changes": changes,
            "changes_a_second": round(changes / measures.wall("log fetched")),
            "backup_to_pg_dump": measures.ratio("full backup", "pg_dump -Fd -j2 -Z0"),
            "restore_at_to_pg_restore": measures.ratio("restore --at", "pg_restore -j2 of it"),
            "load": os.getloadavg()[0],
        }
        if self._other is not None:
            found["restore_at_to_pgbackrest"] = measures.ratio(
                "restore --at",
                "pgBackRest restore of the cluster",
                "pgBackRest: log replayed",
                "pgBackRest: the tenant dumped from it",
            )
        return found

    # ------------------------------------------------------------------ steps

    def _fill(self) -> None:
        options = self._options
        for number in range(options.tenants):
            scale = options.scale if number == 0 else options.others_scale
            name = _name(number)
            self._server.run("createdb", name)
            self._server.run("pgbench", "-i", "-q", "-s", str(scale), name)
            self._server.run("vacuumdb", "-z", name)

    def _back_up(self) -> None:
        measures = self.measures
        add = adding("bench", self._region, self._server.url(_name(0)))
        measures.ours("tenant add", *add)
        prepare = ("source", "prepare", "bench", "db", "--replica-identity-full")
        measures.ours("source prepare", *prepare)
        self._server.run("psql", "-c", "checkpoint")
        measures.theirs("pg_dump -Fd -j2 -Z0", "pg_dump", *self._dumping(self._dump))
        shutil.rmtree(self._dump)
        measures.ours("full backup", "backup", "bench")
        if self._other is not None:
            self._other.back_up(measures)

    def _change(self) -> datetime:
        measures, options = self.measures, self._options
        each = ("pgbench", "-n", "-c", "4", "-j", "2", "-t")
        measures.theirs("pgbench", *each, str(options.transactions // 4), _name(0))
        for number in range(1, options.tenants):
            self._server.run(*each, str(options.others_transactions // 4), _name(number))
        measures.ours("log fetched", "backup", "bench", "--kind", "log")
        moment = datetime.now(UTC)
        measures.ours("log fetched, idle", "backup", "bench", "--kind", "log")
        if self._other is not None:
            # A target that no commit follows is never reached.
            self._server.run("psql", "-c", "create table after_it ()")
            self._other.finish_log()
        return moment

    def _theirs(self, moment: datetime) -> None:
        self._server.run("dropdb", "--if-exists", "theirs")
        self._server.run("createdb", "theirs")
        self.measures.theirs(
            "pg_restore -j2 of it", "pg_restore", "-j2", "-d", "theirs", str(self._dump)
        )

    def _ours(self, moment: datetime) -> None:
        self._server.run("dropdb", "--if-exists", "ours")
        to = f"db={self._server.url('ours')}"
        words = ("restore", "bench", "--at", moment.isoformat(), "--to", to)
        said = self.measures.run("restore --at", [KRYONIX.with_name("python"), _STEPS, *words])
        self.steps = json.loads(said.splitlines()[-1])
        self.equal &= digest(self._server, _name(0)) == digest(self._server, "ours")

    def _cluster(self, other: pgbackrest.PgBackRest, moment: datetime) -> None:
        with other.restore(self.measures, moment) as restored:
            there = Measures(restored, self.measures.env)
            there.theirs("dumped", "pg_dump", *self._dumping(self._dump.with_name("of_theirs")))
            (figure,) = there.figures["dumped"]
            self.measures.note("pgBackRest: the tenant dumped from it", figure)
            self.equal &= digest(restored, _name(0)) == digest(self._server, "ours")

    def _dumping(self, folder: Path) -> list[str]:
        return ["-Fd", "-j2", "-Z0", "-f", str(folder), _name(0)]


def _name(number: int) -> str:
    return f"tenant{number}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=int, default=50, help="of pgbench; 50 are about 750 MB")
    parser.add_argument("--transactions", type=int, default=250_000)
    parser.add_argument("--reps", type=int, default=1, help="of each restore")
    parser.add_argument("--tenants", type=int, default=1, help="databases in the cluster")
    parser.add_argument("--others-scale", type=int, help="of each other tenant; a tenth")
    parser.add_argument("--others-transactions", type=int, help="of each other tenant; a tenth")
    parser.add_argument("--version", type=int, default=max(versions()))
    parser.add_argument("--pgbackrest", action="store_true", help="it knows no version above 15")
    options = parser.parse_args()
    options.others_scale = options.others_scale or max(1, options.scale // 10)
    options.others_transactions = options.others_transactions or options.transactions // 10
    return options


def main() -> int:
    """Run it and print the tables."""
    options = _options()
    work = Path(tempfile.mkdtemp(prefix="kryonix-bench-"))
    settings = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
    try:
        with start_postgres(options.version, settings) as server:
            if options.pgbackrest:
                server.stop()
                server.settings.update(pgbackrest.settings(server.folder / "pgbackrest"))
                server.start()
            bench = Bench(server, work, options)
            bench.run()
            summary = bench.summary()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(bench.measures.table())
    print()
    for name, (begun, ended, took) in bench.steps.items():
        print(f"{name:32} {took:7.2f} s, from {begun:.2f} to {ended:.2f}")
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
