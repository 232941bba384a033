"""An incremental backup of a source with a log is what was there before, and its log since."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from kryonix_backup.backup import incremental as incremental_module
from kryonix_backup.backup.follow import drain_log
from kryonix_backup.backup.incremental import all_entries, check_worth, stretch_since
from kryonix_backup.errors import (
    AlreadyRunning,
    Damaged,
    KryonixError,
    LogBroken,
    SourceUnavailable,
    SourceUnprepared,
    StoreUnavailable,
    ValidationFailed,
)
from kryonix_backup.model import BackupKind, ChunkId, Entry, EntryKind, Phase
from kryonix_backup.repository.log import headers_of
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import PartResult
from kryonix_backup.repository.tree import Root
from kryonix_backup.sources.source import FoldingSource, Size
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import RecordingStore, back_up, new_repository, reopened
from kryonix_backup.testing.sources import MemorySource, Thing
from tests.backup.logged import DB, LoggedSource, content_of
from tests.backup.test_follow import MemoryLog


@pytest.fixture(autouse=True)
def _phases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental_module, "phase_of", lambda _: Phase.DATABASE_RESTORE)


class Tenant:
    """A repository and a source with a log, of which there is a full backup."""

    def __init__(self) -> None:
        self.store = RecordingStore()
        self.repository: Repository = new_repository(self.store)
        self.source = LoggedSource()
        self.clock = FixedClock(NOON + timedelta(minutes=1))

    def back_up(self, kind: BackupKind = BackupKind.INCREMENTAL) -> dict[str, Any]:
        """What its report says of the source."""
        self.clock.sleep(60)
        report = back_up(self.repository, self.source, name="db", kind=kind, clock=self.clock)
        said: dict[str, Any] = report.to_plain()["sources"]["db"]
        return said

    def begin(self, *written: bytes) -> None:
        """A full backup after these, and the log kept from before it."""
        drain_log(self.repository, DB, self.source, self.clock)
        self.source.kept.written += written
        self.back_up(BackupKind.FULL)

    @property
    def position(self) -> Any:
        """Where the newest snapshot stands."""
        return self.repository.snapshot("latest").sources[DB].position


@pytest.fixture
def tenant() -> Tenant:
    made = Tenant()
    made.begin(b"one ", b"two ")
    return made


def test_it_holds_the_rows_of_before_unread_and_the_log_since(tenant: Tenant) -> None:
    assert isinstance(tenant.source, FoldingSource)
    tenant.source.kept.written += [b"three ", b"four "]
    tenant.source.opened.clear()

    said = tenant.back_up()

    assert (said["kind"], said["why"]) == ("incremental", "")
    assert (said["entries"], said["entries_unchanged"]) == (2, 1)
    assert said["bytes_read"] == len("three four ")
    assert tenant.source.opened == [b"changes"]
    assert content_of(tenant.repository) == {b"rows": b"one two ", b"changes": b"three four "}
    assert tenant.position == {
        "log": "m", "at": 4, "time": (NOON + timedelta(seconds=4)).isoformat(),
        "folded": {"after": 2, "changes": 2},
    }  # fmt: skip


def test_the_next_one_folds_what_the_one_before_has_folded(tenant: Tenant) -> None:
    for written in (b"three ", b"four ", b"five "):
        tenant.source.written.append(written)
        assert tenant.back_up()["kind"] == "incremental"

    assert content_of(tenant.repository) == {
        b"rows": b"one two ", b"changes": b"three four five ",
    }  # fmt: skip
    assert tenant.position["folded"] == {"after": 2, "changes": 3}
    last = tenant.source.stretches[-1]
    assert (last.after, last.end) == (2, 5)


def test_no_commit_in_it_is_later_than_its_time(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant.source.kept.written += [b"three ", b"four "]
    drain_log(tenant.repository, DB, tenant.source, tenant.clock)
    real = headers_of
    late = NOON + timedelta(hours=3)

    def skewed(*asked: Any) -> Any:
        """The clock was set back after the first of them."""
        return (h._replace(last=late) if h.number == 3 else h for h in real(*asked))

    monkeypatch.setattr(incremental_module, "headers_of", skewed)
    tenant.back_up()

    assert datetime.fromisoformat(tenant.position["time"]) == late


def test_nothing_since_is_nothing_folded(tenant: Tenant) -> None:
    assert tenant.back_up()["kind"] == "incremental"
    assert content_of(tenant.repository)[b"changes"] == b""
    assert tenant.position["at"] == 2


# ---------------------------------------------------------------------- full instead


def _full(said: dict[str, Any], why: str, tenant: Tenant) -> None:
    assert said["kind"] == "full"
    assert why in said["why"]
    content = content_of(tenant.repository)
    assert content == {b"rows": b"".join(tenant.source.written)}
    assert "folded" not in tenant.position


def test_without_a_snapshot_it_is_a_full_one() -> None:
    tenant = Tenant()
    tenant.source.written.append(b"one ")

    _full(tenant.back_up(), "no snapshot", tenant)


def test_of_a_snapshot_without_a_place_in_a_log_it_is_a_full_one() -> None:
    tenant = Tenant()
    back_up(tenant.repository, MemorySource({b"rows": Thing(b"old")}, names=["all"]), name="db")

    _full(tenant.back_up(), "at no place of a transaction log", tenant)


def test_after_a_gap_it_is_a_full_one_and_then_incremental_again(tenant: Tenant) -> None:
    tenant.source.kept.written += [b"three ", b"four "]
    tenant.source.kept.break_at = [4]

    _full(tenant.back_up(), "has a gap", tenant)
    tenant.source.written.append(b"five ")
    assert tenant.back_up()["kind"] == "incremental"


def test_what_cannot_be_replayed_is_a_full_one(tenant: Tenant) -> None:
    tenant.source.written.append(b"three ")
    tenant.source.kept.opaque = "it rewrote t"

    _full(tenant.back_up(), "it rewrote t", tenant)


def test_of_another_server_it_is_a_full_one(tenant: Tenant) -> None:
    tenant.source.log = "another"

    _full(tenant.back_up(), "of another database, or of another server", tenant)


def test_where_the_log_is_not_kept_any_more_nothing_is_prepared_anew(tenant: Tenant) -> None:
    tenant.source.unprepared = SourceUnprepared("its transaction log is not kept")

    _full(tenant.back_up(), "its transaction log is not kept", tenant)
    assert tenant.source.kept.renewed == [False]


@pytest.mark.parametrize("error", [
    LogBroken("large objects"), Damaged("a segment was changed"), ValidationFailed("a second row"),
])  # fmt: skip
def test_what_the_source_refuses_to_fold_is_a_full_one(tenant: Tenant, error: KryonixError) -> None:
    tenant.source.written.append(b"three ")
    tenant.source.refuses = error

    _full(tenant.back_up(), error.message, tenant)


def test_a_snapshot_that_lost_content_is_not_built_on(tenant: Tenant) -> None:
    for name in tenant.store.names("packs/"):
        del tenant.store.objects[name]

    _full(tenant.back_up(), "the snapshot before", tenant)


def test_too_many_changes_are_a_full_one(tenant: Tenant) -> None:
    tenant.source.weight = 10_000_000
    tenant.source.written.append(b"three ")

    _full(tenant.back_up(), "would make a restore take about", tenant)


# ---------------------------------------------------------------------- and otherwise


def test_what_another_process_has_kept_is_taken(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant.source.written.append(b"three ")
    drain_log(tenant.repository, DB, tenant.source, tenant.clock)
    tenant.source.written.append(b"four ")

    def followed(*_: object) -> None:
        raise AlreadyRunning("another process follows it")

    monkeypatch.setattr(incremental_module, "drain_log", followed)
    assert tenant.back_up()["kind"] == "incremental"
    assert content_of(tenant.repository)[b"changes"] == b"three "
    assert tenant.position["at"] == 3


def test_a_failure_that_passes_leaves_no_snapshot(tenant: Tenant) -> None:
    before = tenant.repository.snapshot_ids()
    tenant.source.written.append(b"three ")
    tenant.source.refuses = SourceUnavailable("the server went away")

    with pytest.raises(SourceUnavailable):
        tenant.back_up()
    assert tenant.repository.snapshot_ids() == before

    tenant.source.refuses = None
    assert tenant.back_up()["kind"] == "incremental"
    assert content_of(tenant.repository)[b"changes"] == b"three "


def test_wherever_the_store_fails_there_is_the_snapshot_before_or_a_whole_one(
    tenant: Tenant,
) -> None:
    tenant.source.written.append(b"three ")
    before = tenant.repository.snapshot_ids()
    written = list(tenant.source.written)
    for good in range(20):
        store = tenant.store.copy()
        failing = FaultyStore(store, put=[*[None] * good, StoreUnavailable("gone")])
        source = LoggedSource(MemoryLog(list(written)))
        ended = True
        try:
            back_up(
                reopened(failing), source, name="db", kind=BackupKind.INCREMENTAL,
                clock=tenant.clock,
            )  # fmt: skip
        except StoreUnavailable:
            ended = False
        after = reopened(store)
        assert len(after.snapshot_ids()) == len(before) + ended
        expected = (
            {b"rows": b"one two ", b"changes": b"three "} if ended else {b"rows": b"one two "}
        )
        assert content_of(after) == expected

        again = back_up(after, source, name="db", kind=BackupKind.INCREMENTAL, clock=tenant.clock)
        assert not again.snapshot.sources[DB].why
        assert content_of(after) == {b"rows": b"one two ", b"changes": b"three "}
        if ended:
            assert good > 3
            return
    raise AssertionError("it never ended")


def test_the_stretch_begins_at_the_rows(tenant: Tenant) -> None:
    tenant.source.written.append(b"three ")
    before = tenant.repository.snapshot("latest").sources[DB]

    stretch = stretch_since(tenant.repository, tenant.source, before, tenant.clock)

    assert (stretch.log, stretch.after, stretch.end) == ("m", 2, 3)
    assert [header.end for header, _ in stretch.segments] == [3]


def test_entries_that_are_left_out_are_missed() -> None:
    part = PartResult("all", Root(ChunkId(bytes(32)), 0), 2, 0)
    entries = [Entry(path, EntryKind.FILE, 0) for path in (b"a", b"b")]

    assert list(all_entries(iter(entries), part)) == entries
    with pytest.raises(Damaged, match="lost 1 of its entries"):
        list(all_entries(iter(entries[:1]), part))


def test_a_database_that_shrank_is_better_read_anew(tenant: Tenant) -> None:
    tenant.back_up()
    result = tenant.repository.snapshot("latest").sources[DB]

    check_worth(result, Size(1, 0))
    with pytest.raises(LogBroken, match="of a new full backup 1 s"):
        check_worth(replace(result, bytes_total=10_000_000_000), Size(1, 0))
