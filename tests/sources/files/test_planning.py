from __future__ import annotations

import os
from pathlib import Path

import pytest

from kryonix_backup.errors import RestoreError, TargetFull, WouldOverwrite
from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.files.folders import open_root
from kryonix_backup.sources.files.journal import Begin, Merge, Move, Row
from kryonix_backup.sources.files.planning import MovePlan, Survey, check_room
from kryonix_backup.sources.files.staging import Before, Places
from kryonix_backup.testing.sources import GivenContent
from tests.sources.files.engine import RESTORE, Snapshot, back_up, target_of, write

META = {"mode": 0o640, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 5}


def _survey(directory: Path, entries: list[Entry], *, overwrite: bool = False) -> int:
    top = os.fsencode(directory)
    return Survey(top, open_root(top), overwrite=overwrite).look(entries)


def _entries(*paths: bytes) -> list[Entry]:
    return [
        Entry(path.rstrip(b"/"), EntryKind.DIRECTORY if path.endswith(b"/") else EntryKind.FILE, 0,
              meta=META)
        for path in paths
    ]  # fmt: skip


def test_merging_into_directories_is_no_conflict(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "mine")

    assert _survey(tmp_path, _entries(b"a/", b"a/b/", b"a/b/new", b"a!", b"c/", b"c/d")) == 6


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        ((b"a/", b"a/b/", b"a/b/mine"), "'a/b/mine'"),
        ((b"a/", b"a/b", b"a/c"), "'a/b'$"),
        ((b"a/b/mine/below",), "'a/b/mine'"),
        ((b"link/", b"link/x", b"link/y"), "'link'$"),
        ((b"link/x/y/z",), "'link'$"),
    ],
)
def test_what_is_in_the_way_is_named_once(
    tmp_path: Path, paths: tuple[bytes, ...], named: str
) -> None:
    write(tmp_path / "a" / "b" / "mine")
    (tmp_path / "link").symlink_to("a")

    with pytest.raises(WouldOverwrite, match=named):
        _survey(tmp_path, _entries(*paths))
    assert _survey(tmp_path, _entries(*paths), overwrite=True) == len(paths)


def test_a_directory_on_another_file_system_is_refused() -> None:
    devices = Path("/dev")
    apart = next(
        path for path in devices.iterdir()
        if path.is_dir() and not path.is_symlink() and path.stat().st_dev != devices.stat().st_dev
    )  # fmt: skip

    with pytest.raises(RestoreError, match="another file system"):
        _survey(devices, _entries(os.fsencode(apart.name) + b"/"))


def test_room_is_judged_where_the_target_will_be(tmp_path: Path) -> None:
    deep = os.fsencode(tmp_path / "a" / "b")

    check_room(deep, 1000, 10)
    with pytest.raises(TargetFull, match="MiB left"):
        check_room(deep, 1 << 60, 10)
    with pytest.raises(TargetFull):
        check_room(deep, 0, 1 << 60)


def test_a_file_system_without_inodes_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = list(os.statvfs(tmp_path))
    fields[7] = 3
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))

    with pytest.raises(TargetFull, match="makes 4 entries"):
        check_room(os.fsencode(tmp_path), 0, 4)


def test_a_directory_that_is_not_there_is_moved_whole(tmp_path: Path) -> None:
    write(tmp_path / "tree" / "new" / "deep" / "file")
    write(tmp_path / "tree" / "there" / "file")
    write(tmp_path / "tree" / "there" / "inner" / "file")
    write(tmp_path / "target" / "there" / "file")
    write(tmp_path / "target" / "there" / "inner" / "mine")
    snapshot = back_up(tmp_path / "tree")

    rows = _plan(tmp_path / "target", snapshot, overwrite=True)

    assert isinstance(rows[0], Begin)
    assert [(type(row), row.path) for row in rows if not isinstance(row, Begin)] == [
        (Merge, b""),
        (Move, b"new"),
        (Merge, b"there"),
        (Move, b"there/file"),
        (Merge, b"there/inner"),
        (Move, b"there/inner/file"),
    ]
    assert [row.over for row in rows if isinstance(row, Move)] == [False, True, False]
    merged = [row for row in rows if isinstance(row, Merge)]
    assert merged[1].after == snapshot[b"there"].meta


def test_a_plan_that_would_overwrite_is_none(tmp_path: Path) -> None:
    write(tmp_path / "tree" / "file")
    write(tmp_path / "target" / "file")

    with pytest.raises(WouldOverwrite, match="'file'"):
        _plan(tmp_path / "target", back_up(tmp_path / "tree"), overwrite=False)


def _plan(directory: Path, snapshot: Snapshot, *, overwrite: bool) -> list[Row]:
    target_of(directory).load(GivenContent(snapshot.items()))
    top = os.fsencode(directory)
    target = open_root(top)
    staging = Places(top, RESTORE).staged(target)
    assert staging is not None
    return list(MovePlan(top, target, staging, Before([], 1), overwrite=overwrite).rows())
