"""
Measure how old the newest restorable commit of a followed database is, and what a dead server
loses.

    .venv/bin/python benchmarks/postgres_rpo.py --seconds 600 --rate 1000

`kryonix backup --kind log --follow` runs as an operator would run it; its lines say to which moment
the database can be restored, and when. The age is looked at just before each of them, which is
when it is greatest: under pgbench's load, then at rest. In the end the server is killed in the
middle of a load: what was committed after the newest restorable moment is lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from postgres_measure import KRYONIX

from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_SAYS = "restorable to "


class Following:
    """The command, and the moments that it has said, each with the time at which it did."""

    def __init__(self, env: dict[str, str]) -> None:
        words = [str(KRYONIX), "backup", "bench", "--kind", "log", "--follow"]
        self._process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
        self.said: list[tuple[datetime, datetime]] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            print(f"  {line}", end="", file=sys.stderr, flush=True)
            if _SAYS in line:
                moment = datetime.fromisoformat(line.strip().rpartition(_SAYS)[2])
                self.said.append((datetime.now(UTC), moment))

    def ages(self, since: int) -> list[float]:
        """How old the newest moment was, just before a newer one was said, and now."""
        said = self.said[since:]
        ends = [*(at for at, _ in said[1:]), datetime.now(UTC)]
        return [(end - moment).total_seconds() for (_, moment), end in zip(said, ends, strict=True)]

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._thread.join()


def load(server: PostgresServer, seconds: int, rate: int) -> subprocess.Popen[bytes]:
    """pgbench, running."""
    words = [
        server.programs / "pgbench", "-h", "127.0.0.1", "-p", server.port, "-U", "postgres", "-n",
        "-c", "8", "-j", "2", "-T", seconds, "-R", rate, "bench",
    ]  # fmt: skip
    return subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def committed(server: PostgresServer, since: datetime | None = None) -> int:
    """How many of pgbench's transactions there are, or were begun since."""
    with server.connect("bench") as connection:
        row = connection.execute(
            "select count(*) from pgbench_history where %s::timestamptz is null or mtime > %s",
            (since, since),
        ).fetchone()
    assert row is not None
    return int(str(row[0]))


def measured(
    server: PostgresServer, following: Following, options: argparse.Namespace
) -> dict[str, object]:
    """The three parts, one after the other."""
    while not following.said:
        time.sleep(0.1)
    found: dict[str, object] = {}
    started, before = len(following.said) - 1, committed(server)
    load(server, options.seconds, options.rate).wait()
    ages = following.ages(started)
    found["tps"] = round((committed(server) - before) / options.seconds)
    found["loaded_age_s"] = {
        "max": round(max(ages), 1),
        "median": round(statistics.median(ages), 1),
    }
    started = len(following.said) - 1
    time.sleep(options.idle)
    found["idle_age_s"] = {"max": round(max(following.ages(started)), 1)}
    running = load(server, 600, options.rate)
    time.sleep(random.uniform(30, 90))
    server.stop(signal.SIGQUIT)
    running.kill()
    running.wait()
    following.stop()
    _, newest = following.said[-1]
    server.start()
    found["lost"] = {"transactions": committed(server, newest), "rate": options.rate}
    return found


def main() -> int:
    """Run it and print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600, help="of the load")
    parser.add_argument("--rate", type=int, default=1000, help="transactions a second")
    parser.add_argument("--idle", type=int, default=180, help="seconds at rest")
    parser.add_argument("--scale", type=int, default=20, help="of pgbench")
    parser.add_argument("--version", type=int, default=max(versions()))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="kryonix-bench-"))
    env = {**os.environ, "KRYONIX_HOME": str(work / "home"),
           "KRYONIX_PASSPHRASE": "bench-passphrase-not-a-secret"}  # fmt: skip
    try:
        with start_postgres(options.version, {"fsync": "on", "max_wal_size": "4GB"}) as server:
            server.run("createdb", "bench")
            server.run("pgbench", "-i", "-q", "-s", str(options.scale), "bench")
            for words in (
                ("tenant", "add", "bench", "--region", f"primary=file://{work / 'region'}",
                 "--source", f"db={server.url('bench')}"),
                ("source", "prepare", "bench", "db", "--replica-identity-full"),
            ):  # fmt: skip
                subprocess.run([KRYONIX, *words], env=env, check=True, capture_output=True)
            found = measured(server, Following(env), options)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
