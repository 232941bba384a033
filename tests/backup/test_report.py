"""What is told of a backup adds up, and has the form that is promised."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from kryonix_backup.backup.report import summarise
from kryonix_backup.model import BackupKind, EntryKind, SnapshotId
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.repositories import RecordingStore, back_up, new_repository
from kryonix_backup.testing.sources import MemorySource, Thing

THINGS = {
    b"": Thing(kind=EntryKind.DIRECTORY),
    b"a": Thing(b"x" * 5000, stamp=[1]),
    b"b": Thing(b"x" * 5000),
}
BROKEN = {**THINGS, b"c\xff": Thing(b"y", fails_at=0)}
SUMS = (
    "bytes_total", "bytes_read", "bytes_new", "bytes_stored", "chunks", "chunks_new", "entries",
    "entries_unchanged",
)  # fmt: skip


def test_the_report_of_a_first_backup() -> None:
    store = RecordingStore()
    repository = new_repository(store)

    plain = json.loads(json.dumps(back_up(repository, MemorySource(THINGS)).to_plain()))

    stored = sum(
        len(body) for name, body in store.objects.items() if name.startswith(("packs/", "index/"))
    )
    source = plain["sources"].pop("files")
    assert plain == {
        "snapshot": repository.snapshot_ids()[0],
        "tenant": "acme",
        "kind": "full",
        "parent": None,
        "status": "complete",
        "started": "2026-11-23T12:00:00+00:00",
        "duration_s": 0.0,
        "bytes_total": 10_000,
        "bytes_read": 10_000,
        "bytes_new": plain["bytes_new"],
        "bytes_stored": stored,
        "chunks": 3,  # the two files share one, and there is the tree's leaf
        "chunks_new": 2,
        "entries": 3,
        "entries_unchanged": 0,
        "problems": [],
        "sources": {},
    }
    assert 5000 < plain["bytes_new"] < 6000
    assert source == {
        "url": "memory://files",
        "kind": "full",
        "why": "",
        "duration_s": 0.0,
        "problems": 0,
        **{name: plain[name] for name in SUMS},
    }


def test_the_report_of_an_incremental_backup() -> None:
    repository = new_repository()
    first = back_up(repository, MemorySource(THINGS)).snapshot

    later = FixedClock(NOON + timedelta(days=1))
    plain = back_up(
        repository, MemorySource(THINGS), kind=BackupKind.INCREMENTAL, clock=later
    ).to_plain()

    assert (plain["kind"], plain["parent"]) == ("incremental", first.id)
    assert (plain["entries"], plain["entries_unchanged"]) == (3, 1)
    assert (plain["bytes_total"], plain["bytes_read"]) == (10_000, 5000)
    assert (plain["chunks_new"], plain["bytes_stored"]) == (0, 0)


def test_entries_that_were_left_out_make_it_incomplete_and_are_named() -> None:
    report = back_up(new_repository(), MemorySource(BROKEN))

    plain = report.to_plain()
    assert plain["status"] == report.status == "incomplete"
    assert plain["problems"] == [
        {"source": "files", "path": "c\\xff", "reason": "c\\xff cannot be opened"}
    ]
    assert plain["sources"]["files"]["problems"] == 1
    assert plain["entries"] == 3


def test_the_whole_is_the_sum_of_the_sources() -> None:
    repository = new_repository()
    one = back_up(repository, MemorySource(THINGS), name="one").snapshot
    two = back_up(repository, MemorySource(BROKEN), name="two").snapshot
    both = type(one)(
        SnapshotId("x"), one.tenant, one.kind, None, NOON, NOON + timedelta(seconds=1.2345),
        {**one.sources, **two.sources}, {}, "0.1.0",
    )  # fmt: skip

    plain = summarise(both).to_plain()

    assert plain["duration_s"] == pytest.approx(1.234, abs=0.001)
    for name in SUMS:
        assert plain[name] == sum(plain["sources"][each][name] for each in ("one", "two"))
    assert [problem["source"] for problem in plain["problems"]] == ["two"]
