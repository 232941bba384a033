"""
What the audit chain costs: verifying a long one, and one record more.

    .venv/bin/python benchmarks/audit.py [--records 100000] [--appends 300] [--data DIR]

The chain is grown in memory and copied to a directory and to SeaweedFS. What one record costs is
what a command waits for: look up the last one seen, write the next, remember it on this machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from kryonix_backup.clock import SystemClock
from kryonix_backup.maintenance.verify_audit import verify_audit
from kryonix_backup.repository.audit_bundle import consolidate
from kryonix_backup.repository.audit_record import BUNDLED, Deed, Head, Origin
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sdk.trail import Trail
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import ANYWHERE
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.repositories import ACME, RecordingStore, new_repository, reopened
from kryonix_backup.testing.s3_servers import start_seaweedfs

BUCKET = "bench-audit"
MIB = 1 << 20


def grown(records: int) -> tuple[RecordingStore, Head, float]:
    """A chain of so many records, its head, and the seconds a record took."""
    store = RecordingStore()
    book = new_repository(store).audit()
    origin = Origin("ana", "backup", "worker-7", 4711, "kryonix", "blue-ox", "ticket 4711")
    head, clock = book.start, SystemClock()
    started = time.perf_counter()
    for number in range(1, records + 1):
        about = "20261123t214005z-9f2ab04c11d2e3f4"
        head = book.append(Deed(clock.now(), "backup", about, "complete", origin), head)
        if number % BUNDLED == 0:
            consolidate(book)
    return store, head, (time.perf_counter() - started) / records


def copy(objects: Mapping[str, bytes], store: ObjectStore) -> None:
    """Put all of them into another store."""
    store.create()
    for name, body in objects.items():
        store.put(name, body)


def measure(label: str, store: ObjectStore, head: Head, appends: int) -> None:
    """Verify the chain, then write records as commands do."""
    repository = reopened(store)
    started, worked = time.perf_counter(), time.process_time()
    report = verify_audit(repository.audit(), head, SystemClock())
    took, work = time.perf_counter() - started, time.process_time() - worked
    assert report.status == "ok", report.findings[:3]
    print(f"{label}: {report.records:,} records in {report.bundles} bundles and"
          f" {len(repository.audit().names().singles):,} objects verified in {took:.2f} s"
          f" ({work:.2f} s of the processor), {report.signatures:,} signatures")  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        times = append(repository, Path(home), head, appends)
    print(f"{label}: one record {statistics.median(times) * 1000:.1f} ms, the slowest of"
          f" {appends} {max(times) * 1000:.0f} ms")  # fmt: skip


def append(repository: Repository, home: Path, head: Head, appends: int) -> list[float]:
    """The seconds that each record took."""
    trail = Trail(ACME, {"KRYONIX_HOME": str(home)}, SystemClock(), lambda: repository)
    trail.remember(repository, head)
    times = []
    for _ in range(appends):
        started = time.perf_counter()
        trail.record("cat", "ok", "20261123t214005z-9f2ab04c11d2e3f4")
        times.append(time.perf_counter() - started)
    return times


def main() -> None:
    """Measure in a directory and on S3."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--appends", type=int, default=300)
    parser.add_argument("--data", type=Path, help="where the stores keep their data")
    asked = parser.parse_args()
    source, head, each = grown(asked.records)
    stored = sum(len(body) for name, body in source.objects.items() if name.startswith("audit/"))
    print(f"in memory: one record {each * 1000:.2f} ms; {stored / MIB:.1f} MiB in all")
    with tempfile.TemporaryDirectory(dir=asked.data) as work:
        directory = FilesystemStore(Path(work) / "directory")
        copy(source.objects, directory)
        measure("directory", directory, head, asked.appends)
        with start_seaweedfs(Path(work) / "s3", [BUCKET]) as server:
            bucket = open_store(server.region(BUCKET), {}, ANYWHERE)
            copy(source.objects, bucket)
            measure("SeaweedFS", bucket, head, asked.appends)


if __name__ == "__main__":
    main()
