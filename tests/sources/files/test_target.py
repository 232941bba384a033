from __future__ import annotations

import os
from pathlib import Path

import pytest

from kryonix_backup.errors import RestoreError, TargetFull, UnsafePath, WouldOverwrite
from kryonix_backup.testing.sources import GivenContent
from tests.sources.files.engine import (
    back_up,
    load,
    look_at,
    restore,
    target_of,
    write,
)

META = {"mode": 0o755, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 5}


def test_every_kind_and_all_metadata_come_back(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)

    report = restore(snapshot, tmp_path / "new" / "place")

    assert snapshot.problems == []
    assert report.problems == ()
    assert report.entries == len(snapshot.entries)
    assert look_at(tmp_path / "new" / "place") == look_at(tree)


def test_nothing_of_ours_stays_behind(tree: Path, tmp_path: Path) -> None:
    before = os.listdir(tree)

    restore(back_up(tree), tree, overwrite=True)

    assert sorted(os.listdir(tree)) == sorted(before)


def test_an_existing_directory_takes_in_entries_and_gets_the_saved_metadata(
    tree: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    mine = write(target / "docs" / "mine", b"was here")
    snapshot = back_up(tree)

    restore(snapshot, target)

    found = look_at(target)
    assert found.pop(b"docs/mine")[4] == b"was here"
    assert mine.exists()
    assert found == look_at(tree)


def test_a_restore_in_place_brings_back_the_old_state(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    saved = look_at(tree)
    write(tree / "docs" / "deep" / "letter", b"changed")
    (tree / "docs!").unlink()
    (tree / "link").unlink()
    (tree / "link").mkdir()
    write(tree / "link" / "inner")

    restore(snapshot, tree, overwrite=True)

    assert look_at(tree) == saved


def test_roll_back_after_commit_puts_everything_back(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    target = tmp_path / "target"
    write(target / "docs" / "deep" / "letter", b"mine", 0o640)
    write(target / "link" / "inner", b"where a link will be")
    os.setxattr(target / "docs", "user.kind", b"mine")
    os.setxattr(target / "docs", "user.more", b"mine")
    os.utime(target / "docs", ns=(7, 7))
    os.utime(target, ns=(9, 9))
    before = look_at(target)
    restoring = target_of(target, overwrite=True)
    load(snapshot, restoring)

    restoring.commit()
    between = look_at(target)
    restoring.roll_back()

    assert between.keys() >= look_at(tree).keys()
    assert look_at(target) == before
    restoring.roll_back()
    assert look_at(target) == before


def test_roll_back_before_commit_drops_what_was_loaded(tree: Path, tmp_path: Path) -> None:
    write(tmp_path / "target" / "mine")
    before = look_at(tmp_path / "target")
    restoring = target_of(tmp_path / "target")
    load(back_up(tree), restoring)

    restoring.roll_back()

    assert look_at(tmp_path / "target") == before


def test_roll_back_takes_away_the_directories_made_for_the_target(
    tree: Path, tmp_path: Path
) -> None:
    restoring = target_of(tmp_path / "a" / "b" / "c")
    load(back_up(tree), restoring)
    restoring.commit()

    restoring.roll_back()

    assert not (tmp_path / "a").exists()
    restoring.roll_back()
    restoring.finish()


def test_commit_and_finish_may_be_run_again(tree: Path, tmp_path: Path) -> None:
    restoring = target_of(tmp_path / "target")
    load(back_up(tree), restoring)

    for _ in range(2):
        restoring.commit()
        assert look_at(tmp_path / "target").keys() > look_at(tree).keys()
    for _ in range(2):
        restoring.finish()
        assert look_at(tmp_path / "target") == look_at(tree)
    restoring.roll_back()
    assert look_at(tmp_path / "target") == look_at(tree)


def test_after_the_switch_was_begun_nothing_is_loaded_again(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    restoring = target_of(tmp_path / "target")
    load(snapshot, restoring)
    restoring.commit()

    restoring.prepare(snapshot.entries, 0)
    with pytest.raises(RestoreError, match="already being switched to"):
        restoring.load(GivenContent(snapshot.items()))


def test_a_switch_needs_something_loaded(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="nothing was loaded"):
        target_of(tmp_path).commit()
    with pytest.raises(RestoreError, match="nothing was loaded"):
        target_of(tmp_path).compare([])


def test_nothing_is_overwritten_unless_asked(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    target = tmp_path / "target"
    for name in ("plain", "empty", "docs!"):
        write(target / name, b"mine")
    before = look_at(target)

    with pytest.raises(WouldOverwrite, match=r"'docs!', 'empty', 'plain'$"):
        target_of(target).prepare(snapshot.entries, 0)

    restoring = target_of(target)
    restoring.load(GivenContent(snapshot.items()))
    with pytest.raises(WouldOverwrite):
        restoring.commit()
    restoring.roll_back()
    assert look_at(target) == before


def test_many_conflicts_are_counted(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / "tree" / f"f{number}")
    snapshot = back_up(tmp_path / "tree")

    with pytest.raises(WouldOverwrite, match=r"'f0', 'f1', 'f2' and 6 more"):
        target_of(tmp_path / "tree").prepare(snapshot.entries, 0)


def test_prepare_makes_nothing(tree: Path, tmp_path: Path) -> None:
    target_of(tmp_path / "a" / "b").prepare(back_up(tree).entries, 1000)

    assert not (tmp_path / "a").exists()


def test_a_full_target_is_noticed_first(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetFull, match="MiB left"):
        target_of(tmp_path / "a").prepare(back_up(tree).entries, 1 << 60)


def test_an_entry_that_appears_after_the_load_is_not_replaced(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    restoring = target_of(target)
    load(back_up(tree), restoring)
    write(target / "plain", b"just now")

    with pytest.raises(WouldOverwrite, match="plain"):
        restoring.commit()

    restoring.roll_back()
    assert (target / "plain").read_bytes() == b"just now"
    assert os.listdir(target) == ["plain"]


def test_a_file_in_place_of_the_target_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "file")

    with pytest.raises(UnsafePath, match="a link or a file"):
        target_of(tmp_path / "file").prepare([], 0)
