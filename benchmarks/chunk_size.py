"""
What sizes of chunks and frames cost and win, on a tree and its edited version.

    .venv/bin/python benchmarks/chunk_size.py --kit ../shared/bench --work /tmp/chunks

For each pair of an average chunk and a frame: the CPU seconds of a first backup, what it stored,
how many chunks it named, and what a second one added after the kit's edits of 3 %.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kryonix_backup.backup import pipeline, run
from kryonix_backup.chunking.fastcdc import ChunkSizes
from kryonix_backup.clock import SystemClock
from kryonix_backup.crypto.stores.root import master_from
from kryonix_backup.events import quiet
from kryonix_backup.model import KIB, MIB, BackupKind, tenant_id
from kryonix_backup.repository import writer
from kryonix_backup.repository.repository import Repository
from kryonix_backup.settings import (
    PRIMARY,
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)
from kryonix_backup.sources.registry import open_source
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import ANYWHERE

AVERAGES = (64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB)
FRAMES = (128 * KIB, 512 * KIB, MIB)


def measure(work: Path, average: int, frame: int, kit: Path, mib: int) -> str:
    """One row of the table."""
    patch = pytest.MonkeyPatch()  # fails where a name is gone
    patch.setattr(pipeline, "FILE_CHUNKS", ChunkSizes(average // 4, average, min(4 * average, MIB)))
    patch.setattr(writer, "FRAME_BYTES", frame)
    tree, store = work / "tree", work / "repository"
    for folder in (tree, store):
        shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(
        [sys.executable, kit / "gen_dataset.py", "v1", tree, "--mib", str(mib)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    tenant = TenantSettings.from_plain(
        {
            "id": "bench",
            "tier": "standard",
            "regions": [{"name": "primary", "url": f"file://{store}"}],
            "sources": [{"name": "tree", "url": f"files://{tree}"}],
        }
    )
    first, cpu = back_up(tenant, create=True)
    subprocess.run(
        [sys.executable, kit / "gen_dataset.py", "v2", tree],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    second, _ = back_up(tenant, create=False)
    return (
        f"| {average // KIB} | {frame // KIB} | {cpu:.2f} | {first['bytes_stored'] / MIB:.1f} "
        f"| {first['chunks']} | {second['bytes_stored'] / MIB:.1f} |"
    )


def back_up(tenant: TenantSettings, *, create: bool) -> tuple[dict[str, int], float]:
    """A full backup, in this process; its report and CPU seconds."""
    clock = SystemClock()
    region: RegionSettings = tenant.region(PRIMARY)
    store = open_store(region, {}, ANYWHERE)
    master = master_from(RootKey(key_file=Secret(b"k" * 32)))
    make = Repository.create if create else None
    repository = (
        make(store, tenant_id(tenant.id), master, clock)
        if make
        else Repository.open(store, tenant_id(tenant.id), master)
    )
    source: SourceSettings = tenant.sources[0]
    started = time.process_time()
    session = run.begin(repository, BackupKind.FULL, clock)
    result = run.back_up_source(repository, session, source, open_source(source), quiet, clock)
    report = run.publish(repository, session, [result], tenant, clock)
    return report.to_plain(), time.process_time() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kit", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--mib", type=int, default=256)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    print("| average KiB | frame KiB | cpu s | stored MiB | chunks | added after edits MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for average in AVERAGES:
        for frame in FRAMES:
            print(measure(options.work, average, frame, options.kit, options.mib), flush=True)


if __name__ == "__main__":
    main()
