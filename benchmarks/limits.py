"""
Hold each of a tenant's limits on real backups and restores, and measure how well it held.

    .venv/bin/python benchmarks/limits.py --work DIR [--only bandwidth|cores|memory]

Each operation runs in a process of its own, to a directory and to SeaweedFS over S3. Bytes are
counted below the throttle, where they pass to the store, and a rate is that of content while it
passes. CPU seconds and peak memory are the kernel's for a process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boundless import NAME, boundless_tiers

from kryonix_backup.limits import LimitSettings
from kryonix_backup.model import KIB, MIB, RegionName, SourceName, TenantId, Tier
from kryonix_backup.settings import (
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)
from kryonix_backup.testing.s3_servers import start_seaweedfs

KEY = RootKey(key_file=Secret(bytes(range(32))))
MBIT = 10**6
GB = 10**9


class Case:
    """A tenant of a tier without bounds, with limits, a home and a region of its own."""

    def __init__(self, work: Path, name: str, tree: Path, store: dict[str, Any]) -> None:
        self.folder = work / name
        self.store = store
        self.plain = {"home": str(self.folder / "home"), "tree": str(tree), **store}
        self.plain["url"] = store["url"].replace("REPOSITORY", name)
        self.plain["back"] = str(self.folder / "back")

    def start(self, what: str, limits: dict[str, Any]) -> subprocess.Popen[str]:
        """The operation, begun in a process of its own."""
        plain = json.dumps({**self.plain, "what": what, "limits": limits})
        words = [sys.executable, __file__, "--child", plain]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def run(self, what: str, limits: dict[str, Any]) -> dict[str, Any]:
        """What the operation measured of itself."""
        return ended(self.start(what, limits))

    def clear(self) -> None:
        """Leave no files behind."""
        shutil.rmtree(self.folder, ignore_errors=True)


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a child measured, once it has ended."""
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def child(plain: dict[str, Any]) -> None:
    """Run one operation and print what it took."""
    from kryonix_backup.sdk.client import Client, RestoreRequest
    from kryonix_backup.storage.filesystem import FilesystemStore
    from kryonix_backup.storage.s3 import S3Store

    secret = plain.get("secret")
    region = RegionSettings(
        RegionName("primary"), plain["url"], plain.get("key"), Secret(secret) if secret else None
    )
    settings = TenantSettings(
        TenantId("bench"), Tier(NAME), (region,),
        (SourceSettings(SourceName("tree"), f"files://{plain['tree']}"),),
        limits=LimitSettings.from_plain(plain["limits"]),
    )  # fmt: skip
    moved = [count_bytes(kind) for kind in (FilesystemStore, S3Store)]
    client = Client.onboard(settings, KEY, env=environment(plain))
    operations: dict[str, Callable[[], object]] = {
        "onboard": lambda: None,
        "backup": client.backup,
        "restore": lambda: client.restore(
            RestoreRequest(to={"tree": f"files://{plain['back']}"}, overwrite=True)
        ),
    }
    for counts in moved:
        counts.clear()
    begun, cpu = time.monotonic(), cpu_seconds()
    operations[plain["what"]]()
    wall = time.monotonic() - begun
    # Not ru_maxrss, in which counts what the process was that this one was started by.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    found = {"wall": wall, "cpu": cpu_seconds() - cpu, "peak": peak}
    passed = sorted(each for counts in moved for each in counts)
    large = [each for each in passed if each[1] >= 256 * KIB]
    print(json.dumps({**found, "bytes": sum(each[1] for each in passed), "large": large}))


def rate_of(large: list[tuple[float, int]]) -> float:
    """
    Bits in a second while content went through: from the first beginning to the last one.

    What is small is left out: a restore reads trees before and after it fills its target.
    """
    large = sorted(large)
    return sum(each[1] for each in large[:-1]) * 8 / (large[-1][0] - large[0][0])


def environment(plain: dict[str, Any]) -> dict[str, str]:
    """A home, and tiers of which one allows more than any machine has."""
    home = Path(plain["home"])
    tiers = boundless_tiers(home / f"tiers-{os.getpid()}")
    return {"KRYONIX_HOME": str(home), "KRYONIX_TIERS": str(tiers)}


def count_bytes(kind: Any) -> list[tuple[float, int]]:
    """When each object began to pass through a store of that class, and its bytes."""
    moved: list[tuple[float, int]] = []
    put, get, get_range = kind.put, kind.get, kind.get_range

    def counted_put(self: Any, name: str, body: Any) -> None:
        moved.append((time.monotonic(), memoryview(body).nbytes))
        put(self, name, body)

    def counted_get(self: Any, *words: Any) -> bytes:
        begun = time.monotonic()
        body: bytes = get(self, *words) if len(words) == 1 else get_range(self, *words)
        moved.append((begun, len(body)))
        return body

    kind.put, kind.get, kind.get_range = counted_put, counted_get, counted_get
    return moved


def cpu_seconds() -> float:
    """User and system time of this process and of its ended children."""
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in each)


def make_noise(folder: Path, mib: int) -> Path:
    """A tree that neither compresses nor repeats."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(mib // 64):
        with (folder / f"noise-{number}").open("wb") as file:
            for _ in range(64):
                file.write(os.urandom(MIB))
    return folder


def make_text(folder: Path, mib: int) -> Path:
    """A tree that compresses well: most of a backup is then computing."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [os.urandom(6).hex().encode() for _ in range(4096)]
    for number in range(mib // 16):
        picks = memoryview(os.urandom(16 * MIB // 6 // 2 * 2)).cast("H")
        body = b" ".join(words[pick & 4095] for pick in picks)[: 16 * MIB]
        (folder / f"text-{number}").write_bytes(body)
    return folder


def say(limit: str, where: str, what: str, asked: str, measured: str, deviation: str) -> None:
    """One row of the table."""
    print(f"| {limit} | {where} | {what} | {asked} | {measured} | {deviation} |", flush=True)


def bandwidth(work: Path, where: str, store: dict[str, Any]) -> None:
    """One process at three rates, then three processes of one tenant at once."""
    for rate, mib in ((100, 256), (500, 1024), (1000, 2048)):
        tree = make_noise(work / f"noise-{mib}", mib)
        case = Case(work, f"{where.lower()}-rate-{rate}", tree, store)
        for what in ("backup", "restore"):
            found = case.run(what, {"bandwidth": f"{rate} Mbit/s"})
            told(where, what, rate, found["bytes"], rate_of(found["large"]))
        case.clear()
        if mib > 1024:
            shutil.rmtree(tree)
    at_once, _ = together(Case(work, f"{where.lower()}-shared", work / "noise-256", store),
                           {"bandwidth": "500 Mbit/s"})  # fmt: skip
    total = sum(each["bytes"] for each in at_once)
    large = [moment for each in at_once for moment in each["large"]]
    told(where, "3 backups at once", 500, total, rate_of(large))


def together(case: Case, limits: dict[str, Any]) -> tuple[list[dict[str, Any]], float]:
    """Three backups of one tenant at once, in processes of their own, and how long they took."""
    cases = [
        Case(case.folder, f"{case.folder.name}-{number}", Path(case.plain["tree"]), case.store)
        for number in range(3)
    ]
    for each in cases:
        each.plain["home"] = case.plain["home"]  # where what they share is
        each.run("onboard", {})
    begun = time.monotonic()
    found = [ended(each) for each in [each.start("backup", limits) for each in cases]]
    wall = time.monotonic() - begun
    case.clear()
    return found, wall


def told(where: str, what: str, rate: int, count: int, bits_s: float) -> None:
    """A rate asked for beside the one that came of it."""
    got = bits_s / MBIT
    say("bandwidth", where, f"{what}, {count // MIB} MiB", f"{rate} Mbit/s", f"{got:.1f} Mbit/s",
        f"{(got / rate - 1) * 100:+.1f} %")  # fmt: skip


def cores(work: Path, where: str, store: dict[str, Any]) -> None:
    """CPU seconds per second, with as many cores as the machine has and with one."""
    tree = make_text(work / "text", 1024)
    for count in (1, 2):
        case = Case(work, f"{where.lower()}-cores-{count}", tree, store)
        for what in ("backup", "restore"):
            found = case.run(what, {"cores": count})
            told_cores(where, what, count, found["cpu"] / found["wall"])
        case.clear()
    each, wall = together(Case(work, f"{where.lower()}-cores", tree, store), {"cores": 1})
    told_cores(where, "3 backups at once", 1, sum(one["cpu"] for one in each) / wall)


def told_cores(where: str, what: str, asked: int, got: float) -> None:
    """Cores asked for beside the CPU seconds per second that came of it."""
    say("cores", where, what, str(asked), f"{got:.2f}", f"{(got / asked - 1) * 100:+.1f} %")


def memory(work: Path, where: str, store: dict[str, Any]) -> None:
    """Peak resident memory with the least that is allowed, and with what a tier allows."""
    tree = make_noise(work / "noise-1024", 1024)
    for limit, size in (("400 MB", 0.4 * GB), ("600 MB", 0.6 * GB), ("8 GB", 8 * GB)):
        case = Case(work, f"{where.lower()}-memory-{limit.replace(' ', '').lower()}", tree, store)
        for what in ("backup", "restore"):
            found = case.run(what, {"memory": limit})
            say("memory", where, what, limit, f"{found['peak'] / 10**6:.0f} MB",
                f"{(found['peak'] / size - 1) * 100:+.1f} %")  # fmt: skip
        case.clear()


@contextmanager
def stores(work: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """Where backups go: a directory, and a bucket of a SeaweedFS that runs meanwhile."""
    with start_seaweedfs(work / "weed") as server:
        yield {
            "directory": {"url": f"file://{work}/repositories/REPOSITORY"},
            "S3": {
                "url": server.url("REPOSITORY"),
                "key": server.root.access_key_id,
                "secret": server.root.secret_access_key,
            },
        }


def main() -> int:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="folder for trees and repositories")
    parser.add_argument("--only", choices=["bandwidth", "cores", "memory"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    print("| limit | store | operation | asked | measured | deviation |\n" + "| --- " * 6 + "|")
    measures = {"bandwidth": bandwidth, "cores": cores, "memory": memory}
    with stores(options.work.resolve()) as found:
        for name, measure in measures.items():
            for where in found if options.only in (None, name) else ():
                measure(options.work.resolve(), where, found[where])
                shutil.rmtree(options.work / "repositories", ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
