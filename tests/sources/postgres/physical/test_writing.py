"""What is written is what was saved, and the WAL on top has neither a gap nor another's bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kryonix_backup.errors import RestoreError, UnsafePath, ValidationFailed
from kryonix_backup.model import ChainId, Entry, EntryKind, LogHeader
from kryonix_backup.sources.postgres.physical.programs import Account
from kryonix_backup.sources.postgres.physical.writing import write_backups, write_wal
from kryonix_backup.sources.source import Log
from tests.sources.postgres.physical.owned import account, given

SEGMENT = 1 << 20
UNTIL = datetime(2026, 11, 26, 12, tzinfo=UTC)
MANIFEST = {"mode": 0o600, "number": 0, "entries": 3}
BODY = bytes(range(256)) * (3 * SEGMENT // 256)


def _entries(size: int = 3) -> list[tuple[Entry, bytes]]:
    return [
        (Entry(b"full", EntryKind.DIRECTORY, 0, meta={"mode": 0o750}), b""),
        (Entry(b"full/a", EntryKind.FILE, size, meta={"mode": 0o640}), b"abc"),
        (Entry(b"full/backup_manifest", EntryKind.FILE, 2, meta=MANIFEST), b"{}"),
    ]


def test_files_come_back_with_their_modes_and_their_owner(tmp_path: Path) -> None:
    tally, loaded = write_backups(given(_entries()), tmp_path, account())

    assert tally.whole
    assert (loaded.entries, loaded.bytes) == (3, 5)
    assert (tmp_path / "full/a").read_bytes() == b"abc"
    assert (tmp_path / "full/a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "full").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "full/a").stat().st_uid == account().uid


def test_what_is_short_or_missing_or_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed, match="full/a came with 3 bytes instead of 4"):
        write_backups(given(_entries(4)), tmp_path, account())
    (tmp_path / "second").mkdir()
    with pytest.raises(ValidationFailed, match="every file"):
        write_backups(given(_entries()[:2]), tmp_path / "second", account())
    outside = [(Entry(b"full/../../x", EntryKind.FILE, 0, meta={"mode": 0o600}), b"")]
    with pytest.raises(UnsafePath):
        write_backups(given(outside), tmp_path / "second", account())


def _log(after: int, *stretches: tuple[int, int]) -> Log:
    return Log(
        after, UNTIL, UNTIL,
        [(LogHeader(ChainId("c"), number, start, end, None, None, None, 0, 0),
          [BODY[start:start + 7], BODY[start + 7:end]])
         for number, (start, end) in enumerate(stretches)],
    )  # fmt: skip


def _name(number: int) -> str:
    return f"0000000100000000{number:08X}"


def test_the_wal_goes_on_where_the_backup_ends(tmp_path: Path) -> None:
    (tmp_path / _name(1)).write_bytes(BODY[SEGMENT : 2 * SEGMENT])
    log = _log(SEGMENT + 500, (SEGMENT - 100, SEGMENT + 50), (SEGMENT + 50, 2 * SEGMENT + 9))

    assert write_wal(log, tmp_path, 1, SEGMENT, account()) == UNTIL
    assert sorted(path.name for path in tmp_path.iterdir()) == [_name(1), _name(2)]
    assert (tmp_path / _name(1)).read_bytes() == BODY[SEGMENT : 2 * SEGMENT]
    last = (tmp_path / _name(2)).read_bytes()
    assert last == BODY[2 * SEGMENT : 2 * SEGMENT + 9] + bytes(SEGMENT - 9)


def test_wal_that_is_not_the_backups_is_refused(tmp_path: Path) -> None:
    spoiled = bytearray(BODY[SEGMENT : 2 * SEGMENT])
    spoiled[499] ^= 1
    (tmp_path / _name(1)).write_bytes(spoiled)

    with pytest.raises(ValidationFailed, match="do not agree"):
        write_wal(_log(SEGMENT + 500, (SEGMENT, 2 * SEGMENT)), tmp_path, 1, SEGMENT, account())


@pytest.mark.parametrize(
    "stretches",
    [((SEGMENT + 501, SEGMENT + 600),), ((SEGMENT, SEGMENT + 500), (SEGMENT + 501, 2 * SEGMENT))],
)
def test_a_gap_is_refused(tmp_path: Path, stretches: tuple[tuple[int, int], ...]) -> None:
    (tmp_path / _name(1)).write_bytes(BODY[SEGMENT : 2 * SEGMENT])

    with pytest.raises(ValidationFailed, match="gap"):
        write_wal(_log(SEGMENT + 500, *stretches), tmp_path, 1, SEGMENT, account())


def test_a_segment_that_is_not_as_long_as_it_says_is_refused(tmp_path: Path) -> None:
    (tmp_path / _name(1)).write_bytes(BODY[SEGMENT : 2 * SEGMENT])
    log = _log(SEGMENT + 500, (SEGMENT, SEGMENT + 900))
    ((header, pieces),) = log.segments
    short = log._replace(segments=[(header._replace(end=header.end + 1), pieces)])

    with pytest.raises(ValidationFailed, match="ends at"):
        write_wal(short, tmp_path, 1, SEGMENT, account())


def test_wal_without_its_beginning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="lacks the WAL before"):
        write_wal(
            _log(SEGMENT + 5, (SEGMENT + 5, SEGMENT + 90)), tmp_path, 1, SEGMENT, Account(0, 0)
        )
