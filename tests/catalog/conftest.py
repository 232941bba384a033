"""Records of runs, as hypothesis makes them, and a catalog in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.catalog.catalog import Catalog
from kryonix_backup.catalog.outbox import Outbox
from kryonix_backup.catalog.record import RunRecord, SnapshotRecord

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

MakeRun = Callable[..., RunRecord]
MakeSnapshot = Callable[..., SnapshotRecord]


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'catalog.db'}"


@pytest.fixture
def catalog(url: str, outbox: Outbox) -> Iterator[Catalog]:
    with Catalog.open(url, outbox) as opened:
        yield opened


@pytest.fixture
def make_run() -> MakeRun:
    def make(run: str = "r1", tenant: str = "acme", after_s: int = 0, **rest: Any) -> RunRecord:
        values: dict[str, Any] = {
            "operation": "backup", "kind": "full", "status": "complete", "started": NOON,
            "finished": NOON + timedelta(seconds=after_s), **rest,
        }  # fmt: skip
        return RunRecord(run=run, tenant=tenant, **values)

    return make


@pytest.fixture
def make_snapshot() -> MakeSnapshot:
    def make(snapshot: str = "r1", tenant: str = "acme") -> SnapshotRecord:
        sources = {"files": {"url": "files:///srv", "entries": 7}}
        return SnapshotRecord(snapshot, tenant, "full", None, NOON, NOON, sources)

    return make
