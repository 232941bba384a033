"""Who did what: what is recorded when, and what goes on without a record."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kryonix_backup.browse.audit_history import newest_records
from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import (
    AlreadyRunning,
    RolledBack,
    SourceUnavailable,
    StoreDenied,
)
from kryonix_backup.model import Blob
from kryonix_backup.repository.layout import audit_name
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sdk.trail import (
    BACKUP,
    FOLLOW,
    RESTORE,
    SOURCE_PREPARE,
    Trail,
    origin_of,
    told_first,
)
from kryonix_backup.testing.repositories import ACME, RecordingStore, new_repository, reopened


class Place:
    """A repository, and a trail on a machine of its own."""

    def __init__(self, home: Path, repository: Repository | None = None) -> None:
        self.store = RecordingStore()
        self.repository = repository or new_repository(self.store)
        self.env = {"KRYONIX_HOME": str(home)}
        self.trail = Trail(ACME, self.env, SystemClock(), lambda: self.repository)

    def told(self) -> list[tuple[str, str, str]]:
        found = newest_records(self.repository.audit(), 99, None, None)
        deeds = [each.record.deed for each in found]
        return [(deed.action, deed.object, deed.result) for deed in deeds]


class Denying(RecordingStore):
    """Takes nothing more once it is ``closed``."""

    closed = False

    def put(self, name: str, body: Blob) -> None:
        if self.closed:
            raise StoreDenied(f"{name} may not be written")
        super().put(name, body)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def closed(tmp_path: Path) -> Place:
    store = Denying()
    place = Place(tmp_path, new_repository(store))
    store.closed = True
    return place


def test_a_record_says_who_and_from_where(place: Place) -> None:
    place.env |= {"KRYONIX_ACTOR": "ana", "KRYONIX_REASON": "ticket 4711", "KRYONIX_RUN": "blue-ox"}
    place.trail.record(RESTORE, "begun", "some-id")
    (shown,) = newest_records(place.repository.audit(), 9, None, None)

    origin = shown.record.deed.origin
    assert (origin.actor, origin.reason, origin.run) == ("ana", "ticket 4711", "blue-ox")
    assert origin.user == origin_of({}).actor, "KRYONIX_ACTOR hides nobody"
    assert origin.host
    assert origin.pid


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\nb", "\udcff\udc80", "𝔘" * 300, '"\\', "\0"])
def test_hostile_words_are_kept_as_they_are(place: Place, hostile: str) -> None:
    place.env |= {"KRYONIX_ACTOR": hostile, "KRYONIX_REASON": hostile}
    place.trail.record(BACKUP)
    (shown,) = newest_records(place.repository.audit(), 9, None, None)

    assert shown.record.deed.origin.actor == hostile[:200]


def test_what_changes_something_is_recorded_before_and_after(place: Place) -> None:
    with place.trail.changing(SOURCE_PREPARE, "db"):
        assert place.told() == [(SOURCE_PREPARE, "db", "begun")]
    with pytest.raises(SourceUnavailable), place.trail.changing(SOURCE_PREPARE, "db"):
        raise SourceUnavailable("gone")

    assert [result for _, _, result in place.told()] == [
        "begun", "ok", "begun", "SourceUnavailable",
    ]  # fmt: skip


def test_what_changes_something_is_not_done_without_a_record(closed: Place) -> None:
    done = False
    with pytest.raises(StoreDenied), closed.trail.changing(SOURCE_PREPARE, "db"):
        done = True
    assert not done


def test_reading_and_restoring_go_on_without_a_record(
    closed: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    closed.trail.record(RESTORE, "begun", "id")
    with closed.trail.reading("cat") as tell:
        tell("id")

    assert [record.getMessage().partition(" of ")[0] for record in caplog.records] == [
        "restore", "cat",
    ]  # fmt: skip
    assert "is not in the audit chain" in caplog.text


def test_an_error_is_not_hidden_by_its_record(closed: Place) -> None:
    with pytest.raises(SourceUnavailable), closed.trail.reading("cat"):
        raise SourceUnavailable("gone")


def test_nothing_is_shown_before_its_record(place: Place) -> None:
    def read(pieces: Iterator[int]) -> Generator[int]:
        with place.trail.reading("cat") as tell:
            yield from told_first(pieces, tell, "id")

    reader = read(iter([1, 2, 3]))
    assert place.told() == []
    assert next(reader) == 1
    assert place.told() == [("cat", "id", "ok")]
    reader.close()
    assert list(read(iter([]))) == []
    assert place.told() == [("cat", "id", "ok")] * 2


def test_a_repository_that_was_set_back_is_never_used(place: Place, tmp_path: Path) -> None:
    for _ in range(3):
        place.trail.record(BACKUP)
    place.store.delete(audit_name(3))
    for action in (BACKUP, RESTORE, "cat"):
        with pytest.raises(RolledBack, match="records 3 to 3"):
            place.trail.record(action)
    Place(tmp_path / "bare", place.repository).trail.record(BACKUP)


def test_long_work_may_look_first(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.trail.check()
    place.trail.record(BACKUP)
    place.trail.check()
    whole = place.store.objects.pop(audit_name(1))
    with pytest.raises(RolledBack):
        place.trail.check()
    place.store.objects[audit_name(1)] = whole[:-1]
    place.trail.check()
    assert "record 1 does not open" in caplog.text


def test_after_an_inquiry_it_is_gone_on(place: Place) -> None:
    for _ in range(5):
        place.trail.record(BACKUP)
    for sequence in (4, 5):
        place.store.delete(audit_name(sequence))
    place.trail.accept("brought back from yesterday's copy")
    place.trail.record(BACKUP)

    numbers = [
        each.record.sequence for each in newest_records(place.repository.audit(), 9, None, None)
    ]
    assert numbers == [1, 2, 3, 6, 7]
    assert place.told()[3] == ("audit accept", "", "ok")


def test_another_repository_in_the_same_place_is_told_and_can_be_accepted(
    place: Place, tmp_path: Path
) -> None:
    place.trail.record(BACKUP)
    other = Place(tmp_path)
    with pytest.raises(RolledBack):
        other.trail.record(BACKUP)
    other.trail.accept("it was made anew")
    other.trail.record(BACKUP)
    assert [action for action, _, _ in other.told()] == ["audit accept", BACKUP]


def test_a_tenant_that_is_added_again_begins_anew(place: Place, tmp_path: Path) -> None:
    place.trail.record(BACKUP)
    other = Place(tmp_path)
    other.trail.onboarded([other.repository])
    other.trail.record(BACKUP)
    assert [action for action, _, _ in other.told()] == ["tenant add", BACKUP]


def test_a_machine_that_keeps_nothing_says_so(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "anchors").write_text("in the way")
    place.trail.remember(place.repository, place.repository.audit().head())
    assert "is not kept on this machine" in caplog.text


def _follow(place: Place, *happens: object) -> None:
    """Follow a log that tells these reports, and ends with these errors."""
    with suppress(AlreadyRunning, SourceUnavailable), place.trail.following("db", print) as heard:
        for each in happens:
            if isinstance(each, Exception):
                raise each
            heard(each)


def test_a_follower_leaves_one_record_at_start_and_one_at_its_end(place: Place) -> None:
    _follow(place, 1, 2, 3)
    assert place.told() == [(FOLLOW, "db", "begun"), (FOLLOW, "db", "ok")]


def test_a_log_that_cannot_be_followed_is_told_of_once(place: Place) -> None:
    for _ in range(20):
        _follow(place, AlreadyRunning("another"))
        _follow(place, SourceUnavailable("gone"))
    assert place.told() == [(FOLLOW, "db", "SourceUnavailable")]
    _follow(place, 1, SourceUnavailable("gone"))
    _follow(place, 1, AlreadyRunning("another"))
    assert [result for _, _, result in place.told()] == [
        "SourceUnavailable", "begun", "SourceUnavailable", "begun", "AlreadyRunning",
    ]  # fmt: skip


def test_records_are_put_together_now_and_then(place: Place) -> None:
    for _ in range(1000):
        place.trail.record("cat")
    assert place.repository.audit().names().bundles == {1000}
    assert reopened(place.store).audit().head().sequence == 1000
