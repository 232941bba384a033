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


def measure(server: PostgresServer, work: Path, transactions: int, figures: Figures) -> None:
    """One run of all steps."""
    region, dump = work / "region", work / "dump"
    env = {
        **os.environ,
        "KRYONIX_HOME": str(work / "home"),
        "KRYONIX_PASSPHRASE": "bench-passphrase-not-a-secret",
        "KRYONIX_POSTGRES_PROGRAMS": str(server.programs),
    }
    url = server.url("bench")

    def kryonix(name: str, *words: str) -> None:
        timed(figures, name, [KRYONIX, *words], env)

    kryonix("tenant add", "tenant", "add", "bench", "--region", f"primary=file://{region}",
            "--source", f"db={url}")  # fmt: skip
    kryonix("source prepare", "source", "prepare", "bench", "db", "--replica-identity-full")
    kryonix("full backup", "backup", "bench")
    at = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    loaded = [
        server.programs / "pgbench",
        *at,
        "-n",
        "-c4",
        "-j2",
        f"-t{transactions // 4}",
        "bench",
    ]
    timed(figures, f"pgbench, {transactions} transactions", loaded, env)
    kryonix("log fetched", "backup", "bench", "--kind", "log")
    moment = datetime.now(UTC)
    kryonix("log fetched, idle", "backup", "bench", "--kind", "log")
    dumped = [server.programs / "pg_dump", *at, "-Fd", "-j2", "-Z0", "-f", dump, "bench"]
    timed(figures, "pg_dump -Fd -j2 -Z0 of then", dumped, env)
    server.run("createdb", "theirs")
    server.run("psql", "-c", "checkpoint")
    timed(figures, "pg_restore -j2 of it",
          [server.programs / "pg_restore", *at, "-j2", "-d", "theirs", dump], env)  # fmt: skip
    kryonix("restore --at", "restore", "bench", "--at", moment.isoformat(), "--to",
            f"db={server.url('ours')}")  # fmt: skip
    same = digest(server, "bench") == digest(server, "ours")
    log = sum(path.stat().st_size for path in (region / "logs").rglob("*") if path.is_file())
    print(json.dumps({"equal": same, "log_bytes": log, "changes": 4 * transactions}))


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=int, default=50, help="of pgbench; 50 are about 750 MB")
    parser.add_argument("--transactions", type=int, default=250_000)
    parser.add_argument("--version", type=int, default=max(versions()))
    options = parser.parse_args()
    figures: Figures = defaultdict(list)
    work = Path(tempfile.mkdtemp(prefix="kryonix-bench-"))
    settings = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
    try:
        with start_postgres(options.version, settings) as server:
            server.run("createdb", "bench")
            server.run("pgbench", "-i", "-q", "-s", str(options.scale), "bench")
            server.run("vacuumdb", "-z", "bench")
            measure(server, work, options.transactions, figures)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for name, [(wall, cpu)] in figures.items():
        print(f"{name:34} {wall:7.2f} s  CPU {cpu:6.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
