"""
Measure backup and restore of one database beside pg_dump and pg_restore, in one run.

    .venv/bin/python benchmarks/postgres.py --scale 50 --reps 3

A server of its own is started, with a database made by ``pgbench -i``. `pg_dump` writes a
directory without compression by two jobs, `pg_restore` reads it by two; ours compresses, encrypts,
deduplicates and proves what it writes. The order changes with each repetition; figures are medians,
with the CPU seconds of the client's processes and of the server's. Prints a table in Markdown, and
as JSON how the figures compare.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from postgres_measure import Measures, adding, environment

from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_DUMP, _BACKUP = "pg_dump -Fd -j2 -Z0", "first full backup"
_THEIRS, _OURS = "pg_restore -j2", "restore into a new database"


def repetition(measures: Measures, work: Path, number: int) -> int:
    """Each step once; the size of our repository in bytes."""
    server = measures.server
    region, dump = work / f"region{number}", work / f"dump{number}"
    measures.env = environment(server, work / f"home{number}")
    measures.ours("tenant add", *adding("bench", region, server.url("bench")))
    theirs, ours = f"theirs{number}", f"ours{number}"
    turn = 1 if number % 2 else -1
    backups: tuple[Callable[[], object], ...] = (
        lambda: measures.theirs(_DUMP, "pg_dump", "-Fd", "-j2", "-Z0", "-f", str(dump), "bench"),
        lambda: measures.ours(_BACKUP, "backup", "bench"),
    )
    for step in backups[::turn]:
        step()
    measures.ours("full backup again, nothing changed", "backup", "bench")
    server.run("createdb", theirs)
    restores: tuple[Callable[[], object], ...] = (
        lambda: measures.theirs(_THEIRS, "pg_restore", "-j2", "-d", theirs, str(dump)),
        lambda: measures.ours(_OURS, "restore", "bench", "--to", f"db={server.url(ours)}"),
    )
    for step in restores[::turn]:
        server.run("psql", "-c", "checkpoint")
        step()
    for database in (theirs, ours):
        server.run("dropdb", database)
    size = sum(path.stat().st_size for path in region.rglob("*") if path.is_file())
    shutil.rmtree(dump)
    shutil.rmtree(region)
    return size


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=int, default=50, help="of pgbench; 50 are about 750 MB")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--version", type=int, default=max(versions()))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="kryonix-bench-"))
    settings = {"shared_buffers": "512MB", "max_wal_size": "4GB", "fsync": "on"}
    try:
        with start_postgres(options.version, settings) as server:
            measures = prepared(server, options.scale)
            with server.connect("bench") as connection:
                row = connection.execute("select pg_database_size('bench')").fetchone()
            assert row is not None
            sizes = [repetition(measures, work, number) for number in range(1, options.reps + 1)]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(measures.table())
    print(
        json.dumps({
            "database": row[0],
            "repository": sizes[0],
            "backup_to_pg_dump": measures.ratio(_BACKUP, _DUMP),
            "restore_to_pg_restore": measures.ratio(_OURS, _THEIRS),
            "load": os.getloadavg()[0],
        })
    )  # fmt: skip
    return 0


def prepared(server: PostgresServer, scale: int) -> Measures:
    """The database that is backed up."""
    server.run("createdb", "bench")
    server.run("pgbench", "-i", "-q", "-s", str(scale), "bench")
    server.run("vacuumdb", "-z", "bench")
    return Measures(server, {})


if __name__ == "__main__":
    sys.exit(main())
