"""
Measure how much WAL a server keeps for us while nothing follows a database's log, under load.

    .venv/bin/python benchmarks/postgres_kept.py --seconds 600 --rate 1000

First with room enough: what the slot keeps by and by, as `kryonix source check` says it, then how
long it takes to fetch what has come together, and how much is kept after that. Then the server may
keep only ``--most`` MiB (`max_slot_wal_keep_size`), and the load goes on until the slot is lost:
how much was kept at most, what the check says, and what the next fetch does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from postgres_measure import KRYONIX

from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_SLOT = """
select wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8, safe_wal_size,
       (select sum(size) from pg_ls_waldir())::int8
from pg_replication_slots where database = 'bench'
"""
_MIB = 1 << 20


class Bench:
    """The tenant, and the server that its database is on."""

    def __init__(self, server: PostgresServer, work: Path, options: argparse.Namespace) -> None:
        self.server = server
        self.options = options
        self._env = {**os.environ, "KRYONIX_HOME": str(work / "home"),
                     "KRYONIX_PASSPHRASE": "bench-passphrase-not-a-secret"}  # fmt: skip
        server.run("createdb", "bench")
        server.run("pgbench", "-i", "-q", "-s", str(options.scale), "bench")
        self.ours("tenant", "add", "bench", "--region", f"primary=file://{work / 'region'}",
                  "--source", f"db={server.url('bench')}")  # fmt: skip
        self.ours("source", "prepare", "bench", "db", "--replica-identity-full")
        self.ours("backup", "bench")
        self.ours("backup", "bench", "--kind", "log")

    def ours(self, *words: str, env: Mapping[str, str] = {}) -> dict[str, Any]:
        """What the command says with --json; what it finds may be the reason for its code."""
        done = subprocess.run(
            [KRYONIX, *words, "--json"], env={**self._env, **env}, capture_output=True, check=False
        )
        if not done.stdout:
            raise SystemExit(f"{words}: {done.stderr.decode()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def may_keep(self, most: str) -> None:
        """The server gives our slot up once that is exceeded."""
        with self.server.connect() as connection:
            connection.execute(f"alter system set max_slot_wal_keep_size = '{most}'".encode())
            connection.execute("select pg_reload_conf()")

    def load(self, seconds: int) -> subprocess.Popen[bytes]:
        """pgbench, running."""
        words = [
            self.server.programs / "pgbench", "-h", "127.0.0.1", "-p", self.server.port, "-U",
            "postgres", "-n", "-c", "8", "-j", "2", "-T", seconds, "-R", self.options.rate, "bench",
        ]  # fmt: skip
        return subprocess.Popen(
            [str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def slot(self) -> dict[str, Any]:
        """What the server says of the slot, in MiB."""
        with self.server.connect() as connection:
            row = connection.execute(_SLOT).fetchone()
        assert row is not None
        status, kept, safe, there = row
        sizes = {"kept": kept, "safe": safe, "pg_wal": there}
        return {"status": status} | {
            name: None if size is None else round(int(str(size)) / _MIB, 1)
            for name, size in sizes.items()
        }

    def checked(self) -> str:
        """What `source check` says of the slot."""
        findings = self.ours("source", "check", "bench", "db")["findings"]
        return next(str(each["evidence"]) for each in findings if each["what"] == "log: slot")

    def commits(self) -> int:
        """How many of pgbench's transactions there are."""
        with self.server.connect("bench") as connection:
            row = connection.execute("select count(*) from pgbench_history").fetchone()
        assert row is not None
        return int(str(row[0]))


def with_room(bench: Bench) -> dict[str, Any]:
    """Nobody follows for so long, then the log is fetched."""
    bench.may_keep("16GB")
    seconds, before = bench.options.seconds, bench.commits()
    process, kept = bench.load(seconds), {}
    for past in range(0, seconds, max(seconds // 10, 1)):
        time.sleep(max(seconds // 10, 1))
        kept[past + max(seconds // 10, 1)] = bench.slot()
        print(f"  {past} s: {bench.slot()}", file=sys.stderr, flush=True)
    process.wait()
    said, transactions = bench.checked(), bench.commits() - before
    started = time.monotonic()
    report = bench.ours("backup", "bench", "--kind", "log")["sources"]["db"]
    took = time.monotonic() - started
    with bench.server.connect() as connection:
        connection.execute("checkpoint")
    return {
        "tps": round(transactions / seconds),
        "kept_mib": {second: each["kept"] for second, each in kept.items()},
        "check": said,
        "fetched_s": round(took, 1),
        "changes": report["changes"],
        "gap": report["gap"],
        "after": bench.slot(),
    }


def without_room(bench: Bench) -> dict[str, Any]:
    """The server may keep little: it gives our slot up, and we tell the gap."""
    bench.may_keep(f"{bench.options.most}MB")
    with bench.server.connect() as connection:  # a checkpoint is what gives it up
        connection.execute("alter system set checkpoint_timeout = '30s'")
        connection.execute("select pg_reload_conf()")
    process = bench.load(3600)
    most, told = 0.0, ""
    while (slot := bench.slot())["status"] != "lost":
        most = max(most, slot["kept"])
        print(f"  {slot}", file=sys.stderr, flush=True)
        if slot["status"] != "reserved" and not told:
            told = bench.checked()
        time.sleep(2)
    process.kill()
    process.wait()
    lost = bench.checked()
    report = bench.ours("backup", "bench", "--kind", "log")["sources"]["db"]
    return {
        "kept_at_most_mib": most,
        "check_before": told,
        "check_after": lost,
        "gap": report["gap"],
    }


def main() -> int:
    """Run it and print the figures as JSON, a line for each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600, help="that nobody follows")
    parser.add_argument("--rate", type=int, default=1000, help="transactions a second")
    parser.add_argument("--most", type=int, default=128, help="MiB that may be kept, afterwards")
    parser.add_argument("--scale", type=int, default=20, help="of pgbench")
    parser.add_argument("--version", type=int, default=max(versions()))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="kryonix-bench-"))
    try:
        with start_postgres(options.version) as server:
            bench = Bench(server, work, options)
            for part in (with_room, without_room):
                print(json.dumps({part.__name__: part(bench)}), flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
