from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.errors import Damaged, RestoreError, TargetFull
from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.testing.sources import GivenContent
from tests.sources.files.engine import (
    Snapshot,
    back_up,
    load,
    look_at,
    restore,
    target_of,
    write,
)

Given = tuple[Entry, Iterator[bytes]]
META = {"mode": 0o640, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 5_000_000_001}


def _file(path: bytes, size: int = 0, **meta: object) -> Entry:
    return Entry(path, EntryKind.FILE, size, meta={**META, **meta})


@pytest.mark.parametrize("interrupted_at", [1, 5, 9, 14])
def test_a_load_goes_on_where_an_earlier_one_stopped(
    tree: Path, tmp_path: Path, interrupted_at: int
) -> None:
    snapshot = back_up(tree)
    restoring = target_of(tmp_path / "target")

    def broken() -> Iterator[Given]:
        for number, (entry, pieces) in enumerate(snapshot.items()):
            if number == interrupted_at:
                raise Damaged("pack 7 is short")
            yield entry, pieces

    with pytest.raises(Damaged):
        restoring.load(GivenContent(broken()))
    consumed: list[bytes] = []
    report = restoring.load(GivenContent(_watched(snapshot, consumed)))

    finished = [entry.path for entry in snapshot.entries[:interrupted_at] if entry.refs]
    assert not set(consumed) & set(finished)
    assert report.entries == len(snapshot.entries)
    assert restoring.compare(snapshot.entries) == []
    restoring.commit()
    restoring.finish()
    assert look_at(tmp_path / "target") == look_at(tree)


def _watched(snapshot: Snapshot, consumed: list[bytes]) -> Iterator[Given]:
    def note(entry: Entry) -> Iterator[bytes]:
        consumed.append(entry.path)
        yield from snapshot.pieces(entry)

    return ((entry, note(entry)) for entry in snapshot.entries)


def test_a_file_that_broke_off_is_written_again(tmp_path: Path) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"half"
        raise Damaged("pack 7 is short")

    entry = _file(b"file", 8)
    restoring = target_of(tmp_path / "target")
    with pytest.raises(Damaged):
        restoring.load(GivenContent([(entry, breaking())]))

    restoring.load(GivenContent([(entry, iter([b"half", b"full"]))]))

    assert restoring.compare([entry]) == []
    restoring.commit()
    assert (tmp_path / "target" / "file").read_bytes() == b"halffull"


def test_entries_that_have_become_another_kind_are_made_anew(tree: Path, tmp_path: Path) -> None:
    """A resumed load makes room for what it brings, whatever an earlier one left there."""
    restoring = target_of(tmp_path / "target")
    other = Snapshot([_file(path) for path in (b"docs", b"link", b"pipe")])
    other.entries += [
        Entry(b"plain", EntryKind.DIRECTORY, 0, meta={**META, "mode": 0o700}),
        _file(b"plain/inner"),
    ]
    restoring.load(GivenContent(other.items()))
    snapshot = back_up(tree)

    load(snapshot, restoring)
    restoring.commit()
    restoring.finish()

    assert look_at(tmp_path / "target") == look_at(tree)


def test_directories_that_were_not_selected_are_made_on_the_way(tmp_path: Path) -> None:
    entry = _file(b"a/b/c/file", 4)

    target = target_of(tmp_path / "target")
    target.load(GivenContent([(entry, iter([b"text"]))]))
    target.commit()
    target.finish()

    assert (tmp_path / "target" / "a/b/c/file").read_bytes() == b"text"
    assert (tmp_path / "target" / "a").stat().st_mode & 0o777 == 0o755


def test_directories_on_the_way_that_are_there_keep_their_metadata(tmp_path: Path) -> None:
    (tmp_path / "target" / "a").mkdir(parents=True, mode=0o711)

    restore(Snapshot([_file(b"a/file")]), tmp_path / "target")

    assert (tmp_path / "target" / "a").stat().st_mode & 0o777 == 0o711


def test_pieces_may_be_cut_anywhere_around_holes(tmp_path: Path) -> None:
    holes = [[0, 4096], [8192, 4096], [16384, 4096]]
    content = b"a" * 4096 + b"b" * 4096
    for size in (1, 1000, 4096, 5000, 8192):
        entry = _file(b"%d" % size, len(content), holes=holes)
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        target = target_of(tmp_path / f"t{size}")
        target.load(GivenContent([(entry, iter(pieces))]))
        assert target.compare([entry]) == []
        target.commit()

        back = (tmp_path / f"t{size}" / str(size)).read_bytes()
        assert back == bytes(4096) + b"a" * 4096 + bytes(4096) + b"b" * 4096 + bytes(4096)


def test_holes_without_sense_end_the_load(tmp_path: Path) -> None:
    entry = _file(b"file", 9, holes=[[5, 5], [3, 3]])

    with pytest.raises(RestoreError, match="holes"):
        target_of(tmp_path / "t").load(GivenContent([(entry, iter([b"123456789"]))]))


def test_a_hard_link_without_its_first_name_is_told_or_given_content(tmp_path: Path) -> None:
    link = Entry(b"second", EntryKind.HARDLINK, 0, meta={**META, "target": b"gone/first"})

    told = target_of(tmp_path / "told")
    report = told.load(GivenContent([(link, iter(()))]))
    assert [problem.path for problem in report.problems] == ["second"]
    assert "'gone/first' was not restored" in report.problems[0].reason
    assert told.compare([link]) == []

    given = target_of(tmp_path / "given")
    report = given.load(GivenContent([(link, iter([b"con", b"tent"]))]))
    assert report.problems == ()
    assert given.compare([link]) == []
    given.commit()
    assert (tmp_path / "given" / "second").read_bytes() == b"content"


def test_a_name_that_the_target_cannot_hold_is_told(tmp_path: Path) -> None:
    entries = [_file(b"n" * 256), _file(b"other"), _file(b"other")]

    target = target_of(tmp_path / "target")
    report = target.load(GivenContent((entry, iter([b"x"])) for entry in entries))

    assert [problem.reason for problem in report.problems] == [
        "could not be restored: file name too long",
        "could not be restored: file exists",
    ]
    assert report.entries == 1


def test_a_target_that_fills_up_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full stands in for the file."""
    real = os.open

    def full(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"file":
            return real("/dev/full", os.O_WRONLY)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", full)

    with pytest.raises(TargetFull, match="file cannot be written: no space left"):
        target_of(tmp_path / "target").load(GivenContent([(_file(b"file"), iter([b"x"]))]))


def test_the_mode_holds_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o022, 0o077):
        before = os.umask(umask)
        try:
            modes = [0o666, 0o600, 0o755, 0o4755]
            snapshot = Snapshot([_file(b"%o" % mode, mode=mode) for mode in modes])
            restore(snapshot, tmp_path / f"t{umask}")
        finally:
            os.umask(before)

        for mode in modes:
            assert (tmp_path / f"t{umask}" / f"{mode:o}").stat().st_mode & 0o7777 == mode


def test_a_staging_directory_that_goes_away_ends_the_load(tmp_path: Path) -> None:
    def removing() -> Iterator[Given]:
        yield _file(b"a"), iter(())
        staged = next((tmp_path / "target").iterdir()) / "tree"
        (staged / "a").unlink()
        staged.rmdir()
        yield _file(b"b"), iter(())

    with pytest.raises(RestoreError, match=os.strerror(errno.ENOENT).lower()):
        target_of(tmp_path / "target").load(GivenContent(removing()))
    write(tmp_path / "unharmed")
