"""
Measure an incremental backup of a database after a small change, beside a full one.

    .venv/bin/python benchmarks/postgres_incremental.py --scale 100 --percent 1

A database of ``pgbench -i`` is prepared and backed up. Then some of its accounts are changed, all
over the table, in transactions of a thousand; the log is fetched, as a schedule does it all the
time, and an incremental and a full backup of the same state are taken. The database is restored to
that moment from either, and compared with what is there by a digest of all rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from postgres_log import digest
from postgres_measure import KRYONIX, adding, environment

from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_BATCH = 1000
_CHANGE = """
update pgbench_accounts set abalance = abalance + 1
where aid in (select ({start} + g) * {every} from generate_series(1, {batch}) g)
"""


class Bench:
    """A database and our repository of it."""

    def __init__(self, server: PostgresServer, work: Path) -> None:
        self._server = server
        self._region = work / "region"
        self._env = environment(server, work / "home")
        self._run(*adding("bench", self._region, server.url("bench")))
        self._run("source", "prepare", "bench", "db", "--replica-identity-full")

    def _run(self, *words: str) -> tuple[float, dict[str, Any]]:
        started = time.monotonic()
        done = subprocess.run(
            [KRYONIX, *words, "--json"], env=self._env, capture_output=True, check=False
        )
        took = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"{words} failed: {done.stderr.decode()}{done.stdout.decode()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return took, answer

    def _size(self) -> int:
        files = (path for path in self._region.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files)

    def backup(self, label: str, kind: str) -> None:
        """One backup; its time, and how much the repository grew."""
        before = self._size()
        took, answer = self._run("backup", "bench", "--kind", kind)
        grown = self._size() - before
        more = answer["sources"]["db"].get("why") or ""
        print(f"{label:44} {took:7.2f} s  {grown / 1e6:9.2f} MB stored {more}", flush=True)

    def restore(self, label: str, name: str, *words: str) -> bool:
        """Whether what came back is what was there."""
        took, answer = self._run("restore", "bench", "--to", f"db={self._server.url(name)}", *words)
        print(f"{label:44} {took:7.2f} s  estimated {answer['estimate_s']:.1f} s", flush=True)
        return digest(self._server, "bench") == digest(self._server, name)

    def change(self, scale: int, percent: float) -> int:
        """Change so much of the accounts; how many there were."""
        rows = round(100_000 * scale * percent / 100)
        every = round(100 / percent)
        with self._server.connect("bench") as connection:
            for start in range(0, rows, _BATCH):
                batch = min(_BATCH, rows - start)
                connection.execute(_CHANGE.format(start=start, every=every, batch=batch).encode())
        return rows


def main() -> int:
    """Run it and print what each step took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=int, default=100, help="of pgbench; 100 are about 1.5 GB")
    parser.add_argument("--percent", type=float, default=1.0)
    parser.add_argument("--backups-only", action="store_true", help="restore nothing")
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
            bench.backup("full backup", "full")
            bench.backup("log fetched, nothing happened", "log")
            rows = bench.change(options.scale, options.percent)
            bench.backup(f"log fetched, {rows:,} changes", "log")
            bench.backup("incremental backup", "incremental")
            moment = datetime.now(UTC).isoformat()
            bench.backup("incremental backup, nothing happened", "incremental")
            if options.backups_only:
                return 0
            equal = bench.restore("restore of the incremental one", "one")
            equal &= bench.restore("restore --at, by the plan", "two", "--at", moment)
            bench.backup("full backup of that state", "full")
            equal &= bench.restore("restore of the full one", "three")
            print(f"all equal: {equal}")
            return 0 if equal else 1
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
