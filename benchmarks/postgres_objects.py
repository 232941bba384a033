"""
Measure what it would cost to keep large objects up to date with each segment of a log.

    .venv/bin/python benchmarks/postgres_objects.py --mib 512

No log holds them. To find which have changed since the last look, the server can only read the
table that they are in, page by page, by each row's transaction; a row is of 2 KiB. Prints what
that scan takes, beside a scan of who owns them, and reading all of them, as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from postgres_measure import server_cpu

from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_LOOKS = {
    # Ages of transactions are compared as the server does, modulo their wrap.
    "which have changed": (
        "select count(distinct loid) from pg_largeobject where age(xmin) < age(%s::text::xid)"
    ),
    "whose owner or rights have changed": (
        "select count(*) from pg_largeobject_metadata where age(xmin) < age(%s::text::xid)"
    ),
    "all of them, read": (
        "select sum(length(lo_get(oid))) from pg_largeobject_metadata where %s::text is not null"
    ),
}


def measured(server: PostgresServer, options: argparse.Namespace) -> dict[str, object]:
    """Each look twice, the second with what the first has left in memory."""
    count = options.mib * 1024 // options.kib
    with server.connect() as connection:
        connection.execute(
            "select count(lo_from_bytea(0, (select string_agg(sha512((g * 1000003 + n)::text"
            "::bytea), '') from generate_series(1, %s) n))) from generate_series(1, %s) g",
            (options.kib * 1024 // 64, count),
        )
        row = connection.execute("select pg_current_xact_id()::xid::text").fetchone()
        assert row is not None
        connection.execute("vacuum analyze pg_largeobject")
        connection.execute("select lo_put(oid, 0, 'x') from pg_largeobject_metadata limit 10")
        found: dict[str, object] = {"objects": count, "mib": options.mib}
        for name, query in _LOOKS.items():
            for _ in range(2):
                before, started = server_cpu(server), time.monotonic()
                connection.execute(query.encode(), (row[0],))
                wall, cpu = time.monotonic() - started, server_cpu(server) - before
                found[name] = {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}
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
