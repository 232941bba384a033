from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.errors import RestoreError, UnsafePath, WouldOverwrite
from kryonix_backup.sources.files import switch
from kryonix_backup.sources.files.kernel import rename_new
from kryonix_backup.sources.files.target import FilesTarget
from tests.sources.files.engine import (
    ROOT,
    Snapshot,
    back_up,
    in_child,
    killed,
    load,
    look_at,
    steps,
    target_of,
    write,
)

CHANGING = {
    "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.chmod", "os.chown",
    "os.utime", "os.setxattr", "os.removexattr",
}  # fmt: skip


def _killed_at(step: int, work: Callable[[], object]) -> int:
    """Run the work in a process that is killed just before its so-manieth change."""
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched() -> None:
        def counted(*arguments: Any) -> None:
            count()
            rename_new(*arguments)

        # Called through ctypes, which no audit event tells of.
        pytest.MonkeyPatch().setattr(switch, "rename_new", counted)
        sys.addaudithook(lambda event, _: count() if event in CHANGING else None)
        work()

    return in_child(watched)


def _snapshot(place: Path) -> Snapshot:
    tree = place / "tree"
    write(tree / "new" / "file", b"new")
    write(tree / "both" / "file", b"restored")
    write(tree / "both" / "inner" / "file", b"restored")
    write(tree / "over", b"restored")
    (tree / "kind").symlink_to("over")
    (tree / "both").chmod(0o700)
    _date(tree, 77)
    return back_up(tree)


def _target(place: Path) -> Path:
    target = place / "target"
    write(target / "both" / "file", b"mine")
    write(target / "both" / "inner" / "other", b"mine")
    write(target / "over", b"mine")
    write(target / "kind" / "file", b"mine")
    os.setxattr(target / "both", "user.mine", b"1")
    _date(target, 55)
    return target


def _date(top: Path, time: int) -> None:
    for path in (top, *top.rglob("*")):
        os.utime(path, ns=(time, time), follow_symlinks=False)


def _scene(place: Path) -> tuple[Path, FilesTarget, dict[bytes, Any]]:
    place.mkdir()
    snapshot = _snapshot(place)
    target = _target(place)
    before = look_at(target)
    restoring = target_of(target, overwrite=True)
    load(snapshot, restoring)
    return target, restoring, before


def _restored(place: Path) -> dict[bytes, Any]:
    """What the target is to be in the end, for comparison."""
    target, restoring, _ = _scene(place)
    restoring.commit()
    restoring.finish()
    return look_at(target)


def test_a_commit_killed_at_any_step_can_be_finished(tmp_path: Path) -> None:
    wanted = _restored(tmp_path / "wanted")
    for step in steps():
        target, restoring, _ = _scene(tmp_path / f"{step}")

        code = _killed_at(step, restoring.commit)
        restoring.commit()
        restoring.finish()

        assert look_at(target) == wanted, step
        if code == 0:
            break
        assert code == killed()
    assert step > 20


def test_a_commit_killed_at_any_step_can_be_rolled_back(tmp_path: Path) -> None:
    for step in steps():
        target, restoring, before = _scene(tmp_path / f"{step}")

        code = _killed_at(step, restoring.commit)
        restoring.roll_back()

        assert look_at(target) == before, step
        if code == 0:
            break


def test_a_roll_back_killed_at_any_step_can_be_finished(tmp_path: Path) -> None:
    for step in steps():
        target, restoring, before = _scene(tmp_path / f"{step}")
        restoring.commit()

        code = _killed_at(step, restoring.roll_back)
        restoring.roll_back()

        # Only the time of the target itself can be lost: its last change is ours, when the
        # journal that holds it goes.
        assert _but_root_time(look_at(target)) == _but_root_time(before), step
        if code == 0:
            assert look_at(target) == before
            break
        assert code == killed()
    assert step > 20


def test_a_finish_killed_at_any_step_can_be_finished(tmp_path: Path) -> None:
    wanted = _restored(tmp_path / "wanted")
    for step in steps():
        target, restoring, _ = _scene(tmp_path / f"{step}")
        restoring.commit()

        code = _killed_at(step, restoring.finish)
        restoring.finish()

        assert _but_root_time(look_at(target)) == _but_root_time(wanted), step
        if code == 0:
            break


def _but_root_time(found: dict[bytes, Any]) -> dict[bytes, Any]:
    return {path: what if path else (*what[:3], None, *what[4:]) for path, what in found.items()}


def test_a_directory_swapped_for_a_link_between_the_moves_is_not_followed(tmp_path: Path) -> None:
    target, restoring, _ = _scene(tmp_path / "scene")
    outside = tmp_path / "outside"
    outside.mkdir()
    assert _killed_at(30, restoring.commit) in (killed(), 0)
    target, restoring, _ = _scene(tmp_path / "again")
    step = next(number for number in steps() if _journaled(tmp_path / f"probe{number}", number))
    _killed_at(step, restoring.commit)
    (target / "both").rename(tmp_path / "aside")
    (target / "both").symlink_to(outside)

    with pytest.raises(UnsafePath):
        restoring.commit()
    assert os.listdir(outside) == []


def _journaled(place: Path, step: int) -> bool:
    """Whether a commit killed at that step has its journal, and has moved nothing yet."""
    target, restoring, _ = _scene(place)
    _killed_at(step, restoring.commit)
    return bool(list(target.glob(".kryonix-replaced-*/journal")))


def test_an_entry_that_appears_between_the_moves_is_not_replaced(tmp_path: Path) -> None:
    target, restoring, _ = _scene(tmp_path / "scene")
    step = next(number for number in steps() if _journaled(tmp_path / f"probe{number}", number))
    _killed_at(step, restoring.commit)
    write(target / "new", b"appeared")

    with pytest.raises(WouldOverwrite, match="new has appeared"):
        restoring.commit()
    assert (target / "new").read_bytes() == b"appeared"

    restoring.roll_back()
    assert (target / "new").read_bytes() == b"appeared"
    assert (target / "over").read_bytes() == b"mine"
    assert sorted(os.listdir(target)) == ["both", "kind", "new", "over"]


def test_what_cannot_be_put_back_is_named_and_kept(tmp_path: Path) -> None:
    target, restoring, before = _scene(tmp_path / "scene")
    restoring.commit()
    (target / "over").unlink()
    (target / "new" / "file").unlink()
    write(target / "later")
    write(target / "over", b"written after the restore").touch()
    replaced = next(target.glob(".kryonix-replaced-*"))
    in_the_way = (target / "over").stat().st_ino
    if in_the_way == _inode_of(replaced, b"over"):  # pragma: no cover - a chance of the system
        (target / "over").rename(target / "x")
        write(target / "over", b"written after the restore")

    with pytest.raises(RestoreError, match=r"cannot be put back.*'over'"):
        restoring.roll_back()

    assert (target / "over").read_bytes() == b"written after the restore"
    assert (replaced / "tree" / "over").read_bytes() == b"mine"
    (target / "over").unlink()
    restoring.roll_back()
    found = look_at(target)
    assert found.pop(b"later")
    assert found == before


def _inode_of(replaced: Path, path: bytes) -> int:
    from kryonix_backup.sources.files.folders import open_root
    from kryonix_backup.sources.files.journal import Move, read_journal

    rows = read_journal(open_root(os.fsencode(replaced)))
    return next(row.inode for row in rows if isinstance(row, Move) and row.path == path)


def test_a_merged_directory_that_is_gone_stops_the_moves(tmp_path: Path) -> None:
    target, restoring, _ = _scene(tmp_path / "scene")
    step = next(number for number in steps() if _journaled(tmp_path / f"probe{number}", number))
    _killed_at(step, restoring.commit)
    (target / "both").rename(tmp_path / "aside")

    with pytest.raises(RestoreError, match="both is no longer in the target"):
        restoring.commit()
    (tmp_path / "aside").rename(target / "both")
    restoring.commit()
    assert (target / "both" / "file").read_bytes() == b"restored"
    assert (os.geteuid() == 0) == ROOT
