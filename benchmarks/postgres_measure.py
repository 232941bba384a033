"""What the benchmarks of a database share: steps that are timed, on a server of their own."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from boundless import NAME, boundless_tiers

from kryonix_backup.testing.postgres import PostgresServer

KRYONIX = Path(sys.executable).with_name("kryonix")
_TICKS = os.sysconf("SC_CLK_TCK")


def environment(server: PostgresServer, home: Path) -> dict[str, str]:
    """
    The least that the command needs, in a home of its own.

    Nothing of ours goes along: it may forbid Python to keep what it compiles, which then is what is
    measured. So would be a tier's bandwidth.
    """
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "KRYONIX_HOME": str(home),
        "KRYONIX_PASSPHRASE": "bench-passphrase-not-a-secret",
        "KRYONIX_POSTGRES_PROGRAMS": str(server.programs),
        "KRYONIX_TIERS": str(boundless_tiers(home)),
    }


def adding(tenant: str, region: Path, url: str) -> tuple[str, ...]:
    """The words that add a tenant with one source, ``db``, and no limits."""
    add = ("tenant", "add", tenant, "--tier", NAME)
    return (*add, "--region", f"primary=file://{region}", "--source", f"db={url}")


class Figure(NamedTuple):
    """One step: wall time, and CPU of the client's processes and of the server's."""

    wall: float
    client: float
    server: float


class Measures:
    """The figures of each step, in the order in which they were first made."""

    def __init__(self, server: PostgresServer, env: Mapping[str, str]) -> None:
        self.server = server
        self.env = dict(env)
        self.figures: dict[str, list[Figure]] = defaultdict(list)

    def run(self, name: str, words: Sequence[str | Path]) -> str:
        """Run a command and note what it took; what it said on stderr."""
        client, server = _children(), server_cpu(self.server)
        started = time.monotonic()
        done = subprocess.run(
            [str(word) for word in words], env=self.env, capture_output=True, check=False
        )
        wall = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"{name} failed: {done.stderr.decode()}{done.stdout.decode()}")
        self.note(name, Figure(wall, _children() - client, server_cpu(self.server) - server))
        return done.stderr.decode()

    def note(self, name: str, figure: Figure) -> None:
        """Keep a figure that was made elsewhere."""
        self.figures[name].append(figure)
        print(
            f"  {name}: {figure.wall:.2f} s, CPU {figure.client:.2f} + {figure.server:.2f} s",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def ours(self, name: str, *words: str) -> None:
        """Time the ``kryonix`` command."""
        self.run(name, [KRYONIX, *words])

    def theirs(self, name: str, program: str, *words: str) -> None:
        """Time one of the server's own programs, connected to it."""
        at = ("-h", "127.0.0.1", "-p", str(self.server.port), "-U", "postgres")
        self.run(name, [self.server.programs / program, *at, *words])

    def wall(self, name: str) -> float:
        """The median of a step's wall time."""
        return statistics.median(figure.wall for figure in self.figures[name])

    def ratio(self, ours: str, *theirs: str) -> float:
        """How many times as long ours took as theirs together."""
        return round(self.wall(ours) / sum(map(self.wall, theirs)), 2)

    def table(self) -> str:
        """The medians, as a table in Markdown; the spread of the wall time is in brackets."""
        lines = ["| step | wall s | client CPU s | server CPU s |", "| --- | --- | --- | --- |"]
        for name, figures in self.figures.items():
            walls, clients, servers = zip(*figures, strict=True)
            spread = f" ({min(walls):.2f} to {max(walls):.2f})" if len(walls) > 1 else ""
            lines.append(
                f"| {name} | {statistics.median(walls):.2f}{spread}"
                f" | {statistics.median(clients):.2f} | {statistics.median(servers):.2f} |"
            )
        return "\n".join(lines)


def server_cpu(server: PostgresServer) -> float:
    """The CPU seconds of a server's processes, and of those that it has ended."""
    assert server.process is not None
    parent = server.process.pid
    ticks = 0
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile, and its parent knows what it took
        if path.name == str(parent):
            ticks += sum(map(int, fields[11:15]))
        elif fields[1] == str(parent):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def cpu_of(process: int) -> float:
    """The CPU seconds of a process that runs."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
