"""
Measure what following a tenant's log costs the tenant: transactions a second with it and without.

    .venv/bin/python benchmarks/postgres_load.py --scale 50 --seconds 60 --rounds 5

pgbench runs its own mixture for so many seconds, by turns with our follower running in a process
of its own and with none. The database is prepared all the while: what `prepare` costs (triggers on
changes of the schema, a slot that keeps the log) is in neither; ``--unprepared`` adds rounds in
another database of the cluster that never was. Follower and server share the machine here, which
is the dearest way. Prints each round and, as JSON, the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postgres_measure import KRYONIX, cpu_of, server_cpu

from kryonix_backup.sdk.tenants import connect
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def follow(every: float) -> None:
    """Keep the log until this process is told to end."""
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    connect("bench").follow_log("db", every=every, until=lambda: bool(ended))


@contextmanager
def following(env: dict[str, str], every: float) -> Iterator[subprocess.Popen[bytes]]:
    """Our follower in a process of its own."""
    words = [sys.executable, __file__, "--follow", str(every)]
    process = subprocess.Popen(words, env=env)
    time.sleep(3)
    try:
        yield process
        if process.poll() is not None:
            raise SystemExit("the follower ended")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def pgbench(server: PostgresServer, database: str, options: argparse.Namespace) -> float:
    """Transactions a second."""
    server.run("psql", "-c", "checkpoint")
    said = server.run(
        "pgbench", "-n", "-c", str(options.clients), "-j", "2", "-T", str(options.seconds),
        *(("-R", str(options.rate)) if options.rate else ()), database,
    )  # fmt: skip
    found = _TPS.search(said)
    assert found is not None
    return float(found[1])


def rounds(
    server: PostgresServer, env: dict[str, str], options: argparse.Namespace
) -> dict[str, list[float]]:
    """The figures of each kind of round; the order changes."""
    tps: dict[str, list[float]] = defaultdict(list)
    kinds = ["without", "with", *(["unprepared"] if options.unprepared else [])]
    for number in range(options.rounds):
        for kind in kinds[:: -1 if number % 2 else 1]:
            before = server_cpu(server)
            cpu = 0.0
            if kind == "with":
                with following(env, options.every) as process:
                    found = pgbench(server, "bench", options)
                    cpu = cpu_of(process.pid)
            else:
                found = pgbench(server, "bench" if kind == "without" else "other", options)
            tps[kind].append(found)
            print(
                f"  {kind:10} {found:9.1f} a second, server's CPU"
                f" {server_cpu(server) - before:.1f} s, follower's {cpu:.1f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            # What came meanwhile is no part of the next round.
            subprocess.run(
                [KRYONIX, "backup", "bench", "--kind", "log"],
                env=env, check=True, capture_output=True,
            )  # fmt: skip
    return tps


def main() -> int:
    """Run it and print how the figures compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=int, default=50, help="of pgbench")
    parser.add_argument("--seconds", type=int, default=60, help="of each round")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rate", type=int, help="at most so many transactions a second")
    parser.add_argument("--every", type=float, default=60.0, help="seconds of a segment")
    parser.add_argument("--unprepared", action="store_true")
    parser.add_argument("--fsync", action="store_true", help="as a server in use has it")
    parser.add_argument("--version", type=int, default=max(versions()))
    parser.add_argument("--follow", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.follow:
        follow(options.follow)
        return 0
    work = Path(tempfile.mkdtemp(prefix="kryonix-bench-"))
    settings = {"shared_buffers": "512MB", "max_wal_size": "4GB",
                "fsync": "on" if options.fsync else "off"}  # fmt: skip
    env = {**os.environ, "KRYONIX_HOME": str(work / "home"),
           "KRYONIX_PASSPHRASE": "bench-passphrase-not-a-secret"}  # fmt: skip
    try:
        with start_postgres(options.version, settings) as server:
            env["KRYONIX_POSTGRES_PROGRAMS"] = str(server.programs)
            prepare(server, env, work, options)
            tps = rounds(server, env, options)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    medians = {kind: statistics.median(found) for kind, found in tps.items()}
    ratios = {f"{kind}_to_without": round(each / medians["without"], 3)
              for kind, each in medians.items()}  # fmt: skip
    print(json.dumps({**medians, **ratios, "load": os.getloadavg()[0]}))
    return 0


def prepare(
    server: PostgresServer, env: dict[str, str], work: Path, options: argparse.Namespace
) -> None:
    """The databases, and one of them prepared and followed up to now."""
    for name in ("bench", "other"):
        server.run("createdb", name)
        server.run("pgbench", "-i", "-q", "-s", str(options.scale), name)
        server.run("vacuumdb", "-z", name)
    for words in (
        ("tenant", "add", "bench", "--region", f"primary=file://{work / 'region'}",
         "--source", f"db={server.url('bench')}"),
        ("source", "prepare", "bench", "db", "--replica-identity-full"),
        ("backup", "bench", "--kind", "log"),
    ):  # fmt: skip
        subprocess.run([KRYONIX, *words], env=env, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
