"""
Measure backup and restore of one database beside pg_dump and pg_restore, in one run.

    .venv/bin/python benchmarks/postgres.py --scale 50 --reps 3

A server of its own is started, with a database made by ``pgbench -i``. `pg_dump` writes a
directory without compression by two jobs, `pg_restore` reads it by two; ours compresses, encrypts,
deduplicates and proves what it writes. The order changes with each repetition; figures are medians,
CPU seconds are those of the client's processes alone (the server works for both alike).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

KRYONIX = Path(sys.executable).with_name("kryonix")
Figures = dict[str, list[tuple[float, float]]]


def timed(figures: Figures, name: str, words: Sequence[str | Path], env: dict[str, str]) -> None:
    """Run a command and note its wall time and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run([str(word) for word in words], env=env, capture_output=True, check=False)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr.decode()}{done.stdout.decode()}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures[name].append((wall, cpu))
    print(f"  {name}: {wall:.2f} s, CPU {cpu:.2f} s", flush=True)


def repetition(server: PostgresServer, work: Path, figures: Figures, number: int) -> int:
    """Each step once; the size of our repository in bytes."""
    home = work / f"home{number}"
    region = work / f"region{number}"
    dump = work / f"dump{number}"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "KRYONIX_HOME": str(home),
           "KRYONIX_PASSPHRASE": "bench-passphrase-not-a-secret",
           "KRYONIX_POSTGRES_PROGRAMS": str(server.programs)}  # fmt: skip
    at = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    subprocess.run(
        [KRYONIX, "tenant", "add", "bench", "--region", f"primary=file://{region}",
         "--source", f"db={server.url('bench')}"],
        env=env, check=True, capture_output=True,
    )  # fmt: skip
    programs = server.programs
    peers = [
        ("pg_dump -Fd -j2 -Z0",
         [programs / "pg_dump", *at, "-Fd", "-j2", "-Z0", "-f", dump, "bench"]),
        ("kryonix backup", [KRYONIX, "backup", "bench"]),
    ]  # fmt: skip
    for name, words in peers[:: 1 if number % 2 else -1]:
        timed(figures, name, words, env)
    timed(figures, "kryonix backup, unchanged", [KRYONIX, "backup", "bench"], env)
    server.run("createdb", f"theirs{number}")
    server.run("psql", "-c", "checkpoint")
    peers = [
        ("pg_restore -j2", [programs / "pg_restore", *at, "-j2", "-d", f"theirs{number}", dump]),
        ("kryonix restore",
         [KRYONIX, "restore", "bench", "--to", f"db={server.url(f'ours{number}')}"]),
    ]  # fmt: skip
    for name, words in peers[:: 1 if number % 2 else -1]:
        timed(figures, name, words, env)
    for database in (f"theirs{number}", f"ours{number}"):
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
    figures: Figures = defaultdict(list)
    work = Path(tempfile.mkdtemp(prefix="kryonix-bench-"))
    settings = {"shared_buffers": "512MB", "max_wal_size": "4GB", "fsync": "on"}
    try:
        with start_postgres(options.version, settings) as server:
            server.run("createdb", "bench")
            server.run("pgbench", "-i", "-q", "-s", str(options.scale), "bench")
            server.run("vacuumdb", "-z", "bench")
            with server.connect("bench") as connection:
                row = connection.execute("select pg_database_size('bench')").fetchone()
            assert row is not None
            sizes = [
                repetition(server, work, figures, number) for number in range(1, options.reps + 1)
            ]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps({"database": row[0], "repository": sizes[0], "load": os.getloadavg()[0]}))
    for name, runs in figures.items():
        walls, cpus = zip(*runs, strict=True)
        print(
            f"{name:28} {statistics.median(walls):7.2f} s ({min(walls):.2f} to {max(walls):.2f})"
            f"  CPU {statistics.median(cpus):6.2f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
