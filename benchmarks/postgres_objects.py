"""
Measure what it costs to keep large objects up to date with each segment of a log.

    .venv/bin/python benchmarks/postgres_objects.py --mib 256

No log holds them. Whether any may have changed is asked each time; which have, where that is so:
the server reads all rows that they are made of. Prints what both take, beside reading the content
of all of them, as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

from postgres_measure import server_cpu

from kryonix_backup.sources.postgres.dumping.objects import (
    changed_objects,
    now_of,
    runs_of_objects,
)
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_CONTENT = "select sum(length(lo_get(oid))) from pg_largeobject_metadata"


def measured(server: PostgresServer, options: argparse.Namespace) -> dict[str, object]:
    """Each look twice, the second with what the first has left in memory."""
    count = options.mib * 1024 // options.kib
    with server.connect() as connection:
        connection.execute(
            "select count(lo_from_bytea(0, (select string_agg(sha512((g * 1000003 + n)::text"
            "::bytea), '') from generate_series(1, %s) n))) from generate_series(1, %s) g",
            (options.kib * 1024 // 64, count),
        )
        connection.execute("vacuum analyze pg_largeobject")
        before = now_of(connection)
        connection.execute("select lo_put(oid, 0, 'x') from pg_largeobject_metadata limit 10")
        now = now_of(connection)
        looks: dict[str, Callable[[], object]] = {
            "whether any have changed": lambda: now_of(connection),
            "which have changed": lambda: changed_objects(connection, before.horizon, now.horizon),
            "which there are": lambda: runs_of_objects(connection),
            "all of them, read": lambda: connection.execute(_CONTENT).fetchall(),
        }
        found: dict[str, object] = {"objects": count, "mib": options.mib}
        for name, look in looks.items():
            for _ in range(2):
                cpu, started = server_cpu(server), time.monotonic()
                look()
                wall, used = time.monotonic() - started, server_cpu(server) - cpu
                found[name] = {"wall_s": round(wall, 3), "cpu_s": round(used, 3)}
    return found


def main() -> int:
    """Run it and print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=512, help="of large objects")
    parser.add_argument("--kib", type=int, default=256, help="of each")
    parser.add_argument("--version", type=int, default=max(versions()))
    options = parser.parse_args()
    with start_postgres(options.version) as server:
        print(json.dumps(measured(server, options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
