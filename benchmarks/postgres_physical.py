"""
Measure physical backups of a cluster and a restore of it, beside `pg_basebackup`.

    .venv/bin/python benchmarks/postgres_physical.py --scale 50

A cluster with a database of ``pgbench -i`` is backed up twice by both, then incrementally after
some transactions of pgbench, and restored, which runs the server's recovery to its end.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from postgres_measure import Measures, adding, environment

from kryonix_backup.testing.postgres import new_folder, start_postgres, versions


def measure(scale: int, transactions: int, work: Path) -> None:
    """Take every step, and print what it took."""
    with start_postgres(versions()[-1], {"summarize_wal": "on", "max_wal_size": "4GB"}) as server:
        url = f"postgresql+physical://postgres@127.0.0.1:{server.port}/"
        measures = Measures(server, environment(server, work / "home"))
        ours, theirs = measures.ours, measures.theirs
        server.run("pgbench", "-i", "-q", "-s", str(scale), "postgres")
        ours("tenant add", *adding("acme", work / "region", url))
        for number in range(2):
            copy = str(work / f"copy{number}")
            theirs("pg_basebackup -Ft -X fetch", "pg_basebackup", "-Ft", "-X", "fetch",
                   "-c", "fast", "-D", copy)  # fmt: skip
            ours(f"full backup {number + 1}", "backup", "acme")
        server.run("pgbench", "-n", "-c", "2", "-t", str(transactions // 2), "postgres")
        ours("incremental backup", "backup", "acme", "--kind", "incremental")
        place = new_folder(server.major)
        try:
            ours("restore", "restore", "acme", "--to", f"db=pgdata://{place.data}?owner=nobody")
        finally:
            place.remove()
    print(measures.table())


def main() -> None:
    """Print each step as it ends, and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("--scale", type=int, default=20)
    parser.add_argument("--transactions", type=int, default=4000)
    chosen = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="kryonix-bench-"))
    try:
        measure(chosen.scale, chosen.transactions, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
