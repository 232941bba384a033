"""
Measure following a database's log, and a restore to a moment, beside `pg_restore` of that state.

    .venv/bin/python benchmarks/postgres_log.py --scale 50 --transactions 250000

A database of ``pgbench -i`` is prepared and backed up; then pgbench runs its own mixture of four
changes per transaction, the log is fetched at once, and the database restored to the moment after.
What comes back is compared with what is there, table by table, by a digest of all rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from postgres import KRYONIX, Figures, timed

from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_DIGEST = "select count(*), sum(hashtextextended(t::text, 7)::numeric) from {} t"
_TABLES = [f"pgbench_{name}" for name in ("accounts", "branches", "history", "tellers")]


def digest(server: PostgresServer, database: str) -> list[object]:
    """What is in the tables, whatever the order of the rows."""
    with server.connect(database) as connection:
        return [connection.execute(_DIGEST.format(name).encode()).fetchone() for name in _TABLES]


class Bench:
    """A database, our repository of it, and what each step took."""

    def __init__(self, server: PostgresServer, work: Path) -> None:
        self._server = server
        self._region = work / "region"
        self._dump = work / "dump"
        self._env = {
            **os.environ,
            "KRYONIX_HOME": str(work / "home"),
            "KRYONIX_PASSPHRASE": "bench-passphrase-not-a-secret",
            "KRYONIX_POSTGRES_PROGRAMS": str(server.programs),
        }
        self.figures: Figures = defaultdict(list)

    def _timed(self, name: str, program: Path | str, *words: str) -> None:
        timed(self.figures, name, [program, *words], self._env)

    def _theirs(self, name: str, program: str, *words: str) -> None:
        at = ("-h", "127.0.0.1", "-p", str(self._server.port), "-U", "postgres")
        self._timed(name, self._server.programs / program, *at, *words)

    def run(self, transactions: int) -> None:
        """Every step once."""
        server, dump = self._server, str(self._dump)
        region, source = f"primary=file://{self._region}", f"db={server.url('bench')}"
        self._timed(
            "tenant add", KRYONIX, "tenant", "add", "bench", "--region", region, "--source", source
        )
        prepare = ("source", "prepare", "bench", "db", "--replica-identity-full")
        self._timed("source prepare", KRYONIX, *prepare)
        self._timed("full backup", KRYONIX, "backup", "bench")
        each = str(transactions // 4)
        self._theirs("pgbench", "pgbench", "-n", "-c", "4", "-j", "2", "-t", each, "bench")
        self._timed("log fetched", KRYONIX, "backup", "bench", "--kind", "log")
        moment = datetime.now(UTC).isoformat()
        self._timed("log fetched, idle", KRYONIX, "backup", "bench", "--kind", "log")
        self._theirs(
            "pg_dump -Fd -j2 -Z0 of then", "pg_dump", "-Fd", "-j2", "-Z0", "-f", dump, "bench"
        )
        server.run("createdb", "theirs")
        server.run("psql", "-c", "checkpoint")
        self._theirs("pg_restore -j2 of it", "pg_restore", "-j2", "-d", "theirs", dump)
        to = f"db={server.url('ours')}"
        self._timed("restore --at", KRYONIX, "restore", "bench", "--at", moment, "--to", to)

    def summary(self, transactions: int) -> dict[str, object]:
        """Whether what came back is what was there, and how large the log is."""
        files = (path for path in (self._region / "logs").rglob("*") if path.is_file())
        return {
            "equal": digest(self._server, "bench") == digest(self._server, "ours"),
            "log_bytes": sum(path.stat().st_size for path in files),
            "changes": 4 * transactions,
        }


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=int, default=50, help="of pgbench; 50 are about 750 MB")
    parser.add_argument("--transactions", type=int, default=250_000)
    parser.add_argument("--version", type=int, default=max(versions()))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="kryonix-bench-"))
    settings = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
    try:
        with start_postgres(options.version, settings) as server:
            server.run("createdb", "bench")
            server.run("pgbench", "-i", "-q", "-s", str(options.scale), "bench")
            server.run("vacuumdb", "-z", "bench")
            bench = Bench(server, work)
            bench.run(options.transactions)
            print(json.dumps(bench.summary(options.transactions)))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for name, [(wall, cpu)] in bench.figures.items():
        print(f"{name:34} {wall:7.2f} s  CPU {cpu:6.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
