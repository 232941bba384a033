"""A record says the same before and after it was JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.catalog.record import RunRecord, SnapshotRecord, record_of_backup
from kryonix_backup.model import BackupKind, ChunkId, Problem, SnapshotId, SourceName, TenantId
from kryonix_backup.repository.snapshot import PartResult, Snapshot, SourceResult
from kryonix_backup.repository.tree import Root

MOMENTS = st.datetimes(timezones=st.just(UTC))
RUNS = st.builds(
    RunRecord,
    run=st.text(), tenant=st.text(), operation=st.text(), kind=st.text(), status=st.text(),
    started=MOMENTS, finished=MOMENTS, bytes_read=st.integers(0), error=st.none() | st.text(),
)  # fmt: skip
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@given(RUNS)
def test_a_run_survives_json(run: RunRecord) -> None:
    assert RunRecord.from_plain(json.loads(json.dumps(run.to_plain()))) == run


@given(st.builds(SnapshotRecord, st.text(), st.text(), st.text(), st.none(), MOMENTS, MOMENTS))
def test_a_snapshot_survives_json(snapshot: SnapshotRecord) -> None:
    assert SnapshotRecord.from_plain(json.loads(json.dumps(snapshot.to_plain()))) == snapshot


@pytest.mark.parametrize("plain", [{}, {"run": "r"}, {"started": "noon", "finished": "noon"}])
@pytest.mark.parametrize("kind", [RunRecord, SnapshotRecord])
def test_another_form_is_refused(
    kind: type[RunRecord] | type[SnapshotRecord], plain: dict[str, str]
) -> None:
    with pytest.raises(ValueError):
        kind.from_plain(plain)


def test_a_field_of_a_later_version_is_ignored() -> None:
    run = RunRecord("r", "acme", "backup", "full", "complete", NOON, NOON)

    assert RunRecord.from_plain({**run.to_plain(), "colour": "blue"}) == run


def _snapshot(*problems: Problem) -> Snapshot:
    part = PartResult("tree", Root(ChunkId(bytes(32)), 0), 3, 30)
    source = SourceResult(
        name=SourceName("files"), url="files:///srv", parts=(part,), position={}, entries=3,
        entries_unchanged=1, bytes_total=30, bytes_read=20, bytes_new=10, bytes_stored=5, chunks=4,
        chunks_new=2, duration_s=0.5, problems=problems,
    )  # fmt: skip
    more = SourceResult.from_plain({**source.to_plain(), "name": "more"})
    return Snapshot(
        SnapshotId("20261123t120000z-0011223344556677"), TenantId("acme"), BackupKind.FULL, None,
        NOON, NOON.replace(second=2), {source.name: source, more.name: more}, {}, "0.1.0",
    )  # fmt: skip


def test_a_backups_run_is_what_its_snapshot_says() -> None:
    run = record_of_backup(_snapshot())

    assert (run.run, run.snapshot) == ("20261123t120000z-0011223344556677",) * 2
    assert (run.operation, run.kind, run.status) == ("backup", "full", "complete")
    assert (run.bytes_read, run.bytes_new, run.bytes_stored) == (40, 20, 10)
    assert (run.chunks, run.chunks_new, run.duration_s) == (8, 4, 2.0)


def test_a_backup_that_left_something_out_is_incomplete() -> None:
    snapshot = _snapshot(Problem("a", "permission denied"))

    assert record_of_backup(snapshot).status == "incomplete"
    assert SnapshotRecord.of(snapshot).sources["files"]["problems"] == 1
