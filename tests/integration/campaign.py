"""What `script/campaign` runs."""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kryonix_backup.testing.s3_servers import S3Server, start_seaweedfs
from tests.integration.killing import Killing
from tests.integration.moments import PEAK, Life, moments
from tests.integration.stopping import Stopping
from tests.integration.stores import Place
from tests.integration.sweep import Sweep
from tests.integration.tenants import side_by_side
from tests.services.postgres import VERSIONS
from tests.services.s3 import TENANT_A
from tests.services.s3_proxy import (
    Answer,
    AnswerLost,
    CutAnswer,
    CutRequest,
    Fault,
    S3Proxy,
    Silence,
)

Rows = dict[str, dict[str, int]]

_MOST_COLUMNS = 3
_ONE_LIFE = 25  # moments, or kills
SILENCE = "silence"
FAULTS: dict[str, Fault] = {
    "cut while the request is sent": CutRequest(0),
    "cut before the answer": AnswerLost(),
    "cut within the answer": CutAnswer(7),
    "503 SlowDown": Answer(503, "SlowDown"),
    "500 InternalError": Answer(500, "InternalError"),
    "503 without a word": Answer(503),
    "429": Answer(429),
    SILENCE: Silence(1.5),
}
# Those that are also tried as an outage, where each backup ends after half a minute at most.
LAST = ("cut before the answer", "503 SlowDown", "500 InternalError", SILENCE)


def kill(work: Path, rounds: int, seed: int) -> Rows:
    """Half of the rounds in a directory, half on S3."""
    found: Rows = {}
    with _server(work) as server:
        places = {
            "directory": Place.in_directory(work / "stores"),
            "S3": Place.in_bucket(server, TENANT_A),
        }
        for number, (name, place) in enumerate(places.items()):
            killing = Killing(place, work / name, seed + number)
            for done in range(rounds // 2):
                _progress(f"{name}: round {done + 1} of {rounds // 2}")
                killing.round()
            found[name] = dict(killing.tally.rows())
    return found


def restore(work: Path, rounds: int, seed: int) -> Rows:
    """Half of the restores are gone on with, half undone; by SIGKILL and by SIGINT."""
    found: Rows = {}
    for by in (signal.SIGKILL, signal.SIGINT):
        (work / by.name).mkdir()
        stopping = Stopping(work / by.name, seed)
        for done in range(rounds // 4):
            _progress(f"{by.name}: round {done + 1} of {rounds // 4}")
            stopping.resumed(by)
            stopping.rolled_back(by)
        found[by.name] = {f"stopped {name}": n for name, n in sorted(stopping.moments.items())}
    return found


def network(work: Path, rounds: int, seed: int) -> Rows:
    """Every request of a backup broken: once, by the SDK, and from there on, by processes."""
    found: Rows = {}
    with _server(work) as server, S3Proxy(server.endpoint) as proxy:
        place = Place.in_bucket(server, TENANT_A, proxy.endpoint)
        quick = Place(f"{place.url}&timeout=0.5", place.environment)
        for name, outage in [*((each, False) for each in FAULTS), *((each, True) for each in LAST)]:
            label = f"{name}, {'from there on' if outage else 'once'}"
            where = quick if name == SILENCE else place
            sweep = Sweep(where, proxy, work / str(len(found)), by_command=outage)
            result = sweep.run(FAULTS[name], outage=outage)
            codes = Counter(f"ended with {code}" for code in result.codes)
            found[label] = {"requests broken": result.requests, **codes}
            _progress(f"{label}: {found[label]}")
    return found


def lived_through(work: Path, rounds: int, seed: int) -> Rows:
    """Random moments of a mixed load, by each version of PostgreSQL."""
    life = Life(seed, seconds=25.0, many=1_000_000, large=2)
    return _lives(work, [(life, count) for count in _parts(rounds)])


def killed(work: Path, rounds: int, seed: int) -> Rows:
    """The follower killed so often, and half as many moments, of which many are around a kill."""
    life = Life(seed, seconds=0.0, many=1_000_000, large=2)
    lives = [(life._replace(kills=kills), -(-kills // 2)) for kills in _parts(rounds)]
    return _lives(work, lives)


def _parts(rounds: int) -> list[int]:
    return [min(_ONE_LIFE, rounds - start) for start in range(0, rounds, _ONE_LIFE)]


def _lives(work: Path, lives: list[tuple[Life, int]]) -> Rows:
    """So many moments of each life, by turns of each version of PostgreSQL."""
    found: dict[str, Counter[str]] = {}
    for number, (life, count) in enumerate(lives):
        version = VERSIONS[number % len(VERSIONS)]
        folder = work / str(number)
        folder.mkdir()
        this = life._replace(seed=life.seed + number)
        _progress(f"PostgreSQL {version}, seed {this.seed}: {count} moments")
        looked = moments(folder, version, this, count, _progress)
        _progress(f"PostgreSQL {version}, seed {this.seed}: {looked}")
        sums = found.setdefault(f"PostgreSQL {version}", Counter())
        peak = max(sums[PEAK], looked.get(PEAK, 0))
        sums.update({**looked, PEAK: peak - sums[PEAK]})
        shutil.rmtree(folder)
    return {name: dict(each) for name, each in found.items()}


def neighbours(work: Path, rounds: int, seed: int) -> Rows:
    """So many tenants in one cluster, by each version of PostgreSQL; all are restored."""
    found: Rows = {}
    for version in VERSIONS:
        folder = work / str(version)
        _progress(f"PostgreSQL {version}: {rounds} tenants")
        found[f"PostgreSQL {version}"] = {"tenants": rounds} | {
            f"{drains.threads} at once: {what}": value
            for drains in side_by_side(folder, version, rounds, rounds, 10_000)
            for what, value in (("changes", drains.changes), ("ms", int(drains.seconds * 1000)))
        }
    return found


CAMPAIGNS = {
    "kill": kill, "restore": restore, "network": network, "moments": lived_through,
    "follower": killed, "tenants": neighbours,
}  # fmt: skip


@contextmanager
def _server(work: Path) -> Iterator[S3Server]:
    with start_seaweedfs(work / "seaweedfs", [TENANT_A]) as server:
        yield server


def _progress(text: str) -> None:
    Console(stderr=True).print(text, end="\n", highlight=False)


def _table(title: str, found: Rows) -> Table:
    """A column for each place, or a row where there are many of them."""
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    table = Table("", title=title)
    if len(found) <= _MOST_COLUMNS:
        for label in found:
            table.add_column(label, justify="right")
        for name in names:
            table.add_row(name, *(str(row.get(name, 0)) for row in found.values()))
        return table
    for name in names:
        table.add_column(name, justify="right")
    for label, row in found.items():
        table.add_row(label, *(str(row.get(name, 0)) for name in names))
    return table


def main() -> None:
    """Run one campaign; an AssertionError is what it found."""
    parser = argparse.ArgumentParser(prog="script/campaign", description=__doc__)
    parser.add_argument("name", choices=list(CAMPAIGNS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="kryonix-campaign-"))
    started = time.monotonic()
    try:
        rows = CAMPAIGNS[asked.name](work, asked.rounds, asked.seed)
    finally:
        if not asked.keep:
            shutil.rmtree(work, ignore_errors=True)
    took = time.monotonic() - started
    Console(width=140).print(_table(f"{asked.name}, seed {asked.seed}, {took:.0f} s", rows))


if __name__ == "__main__":
    main()
