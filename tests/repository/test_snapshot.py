"""A snapshot's manifest comes back out of JSON as it was, or is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kryonix_backup.errors import Damaged
from kryonix_backup.model import BackupKind, ChunkId, Problem, SnapshotId, SourceName
from kryonix_backup.repository.snapshot import PartResult, Snapshot, SourceResult
from kryonix_backup.repository.tree import Root
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.repositories import ACME

ROOT = Root(ChunkId(b"\xab" * 32), 1)
SOURCE = SourceResult(
    name=SourceName("files"),
    url="files:///srv",
    parts=(PartResult("tree", ROOT, 3, 1000),),
    position={"lsn": "0/16B3748"},
    entries=3,
    entries_unchanged=1,
    bytes_total=1000,
    bytes_read=900,
    bytes_new=800,
    bytes_stored=700,
    chunks=5,
    chunks_new=4,
    duration_s=1.5,
    problems=(Problem("a\\xff", "cannot be read"),),
)
SNAPSHOT = Snapshot(
    id=SnapshotId("20261123t120000z-0123456789abcdef"),
    tenant=ACME,
    kind=BackupKind.INCREMENTAL,
    parent=SnapshotId("20261122t120000z-0123456789abcdef"),
    started=NOON,
    finished=NOON + timedelta(seconds=1.25),
    sources={SourceName("files"): SOURCE},
    settings={"id": "acme"},
    version="0.1.0",
)


def _json(plain: object) -> Any:
    return json.loads(json.dumps(plain))


@pytest.mark.parametrize("snapshot", [SNAPSHOT, replace(SNAPSHOT, parent=None, sources={})])
def test_a_snapshot_comes_back_out_of_its_json(snapshot: Snapshot) -> None:
    assert Snapshot.from_plain(_json(snapshot.to_plain())) == snapshot


def test_a_sources_result_comes_back_out_of_its_json() -> None:
    """A Prefect task returns it."""
    assert SourceResult.from_plain(_json(SOURCE.to_plain())) == SOURCE


def test_the_manifest_has_its_known_form() -> None:
    plain = _json(SNAPSHOT.to_plain())

    assert sorted(plain) == [
        "finished", "id", "kind", "parent", "settings", "sources", "started", "tenant", "version",
    ]  # fmt: skip
    assert plain["started"] == "2026-11-23T12:00:00+00:00"
    assert plain["sources"]["files"]["parts"] == [
        {"name": "tree", "root": ["ab" * 32, 1], "entries": 3, "bytes": 1000}
    ]
    assert plain["sources"]["files"]["problems"] == [{"path": "a\\xff", "reason": "cannot be read"}]


@pytest.mark.parametrize("field", sorted(SNAPSHOT.to_plain()))
def test_a_manifest_that_lacks_a_field_is_damaged(field: str) -> None:
    plain = _json(SNAPSHOT.to_plain())
    del plain[field]

    with pytest.raises(Damaged):
        Snapshot.from_plain(plain)


def test_a_source_says_why_it_was_read_whole_and_else_what_earlier_versions_did() -> None:
    whole = replace(SOURCE, why="the log has a gap")

    assert "why" not in SOURCE.to_plain()
    assert SourceResult.from_plain(_json(whole.to_plain())) == whole


@pytest.mark.parametrize("field", sorted(SOURCE.to_plain()))
def test_a_source_that_lacks_a_field_is_damaged(field: str) -> None:
    plain = _json(SOURCE.to_plain())
    del plain[field]

    with pytest.raises(Damaged):
        SourceResult.from_plain(plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "weekly"},
        {"kind": 7},
        {"started": 7},
        {"started": "yesterday"},
        {"started": "2026-11-23T12:00:00"},
        {"finished": "2026-11-23T12:00:00"},
        {"sources": 7},
        {"sources": {"files": 7}},
        {"sources": {"files": {}}},
    ],
)
def test_a_manifest_in_the_wrong_form_is_damaged(changes: dict[str, object]) -> None:
    with pytest.raises(Damaged):
        Snapshot.from_plain(_json(SNAPSHOT.to_plain()) | changes)


@pytest.mark.parametrize(
    "changes", [{"parts": 7}, {"parts": [7]}, {"parts": [{}]}, {"problems": 7}, {"problems": [{}]}]
)
def test_a_source_in_the_wrong_form_is_damaged(changes: dict[str, object]) -> None:
    with pytest.raises(Damaged):
        SourceResult.from_plain(_json(SOURCE.to_plain()) | changes)


def test_a_source_with_an_unknown_field_is_damaged() -> None:
    with pytest.raises(Damaged):
        SourceResult.from_plain(_json(SOURCE.to_plain()) | {"unknown": 1})


@pytest.mark.parametrize(
    ("parts", "path", "shown"),
    [
        (1, b"", "files"),
        (1, b"a/b", "files/a/b"),
        (1, b"a/\xff", "files/a/\\xff"),
        (2, b"", "files/tree"),
        (2, b"a/b", "files/tree/a/b"),
    ],
)
def test_paths_for_people_name_the_part_only_among_several(
    parts: int, path: bytes, shown: str
) -> None:
    source = replace(SOURCE, parts=SOURCE.parts * parts)

    assert source.shown(source.parts[0], path) == shown
