"""Snapshots and targets that were tampered with: nothing is written outside the target."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.errors import UnsafePath, WouldOverwrite
from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.testing.sources import GivenContent
from tests.sources.files.engine import (
    back_up,
    look_at,
    restore,
    target_of,
    write,
)

META = {"mode": 0o755, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 5}


@pytest.mark.parametrize(
    "path", [b"../up", b"a/../../up", b"/etc/x", b"a//b", b"a/", b".", b"a/./b", b"..", b"a\0b"]
)
def test_hostile_paths_are_refused(tmp_path: Path, path: bytes) -> None:
    entry = Entry(path, EntryKind.FILE, 0, meta=META)
    restoring = target_of(tmp_path / "target")

    with pytest.raises(UnsafePath):
        restoring.prepare([entry], 0)
    with pytest.raises(UnsafePath):
        restoring.load(GivenContent([(entry, iter([b"x"]))]))

    restoring.roll_back()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [EntryKind.FILE, EntryKind.HARDLINK, EntryKind.DIRECTORY])
def test_a_link_in_the_snapshot_leads_nowhere(tmp_path: Path, kind: EntryKind) -> None:
    outside = write(tmp_path / "outside" / "secret", b"secret").parent
    link = Entry(b"a", EntryKind.SYMLINK, 0, meta={**META, "target": os.fsencode(outside)})
    below = Entry(b"a/new", kind, 0, meta={**META, "target": b"a/secret"})
    restoring = target_of(tmp_path / "target")

    with pytest.raises(UnsafePath):
        restoring.load(GivenContent([(link, iter(())), (below, iter([b"x"]))]))

    restoring.roll_back()
    assert os.listdir(outside) == ["secret"]
    assert os.stat(outside / "secret").st_nlink == 1


@pytest.mark.parametrize("target", [b"../outside", b"/etc/passwd", b"l/../../outside"])
def test_a_hard_link_stays_in_the_tree(tmp_path: Path, target: bytes) -> None:
    write(tmp_path / "outside")
    entry = Entry(b"name", EntryKind.HARDLINK, 0, meta={**META, "target": target})
    restoring = target_of(tmp_path / "target")

    with pytest.raises(UnsafePath):
        restoring.prepare([entry], 0)
    with pytest.raises(UnsafePath):
        restoring.load(GivenContent([(entry, iter(()))]))


def test_a_link_in_place_of_a_directory_is_not_followed(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "docs").symlink_to(outside)

    with pytest.raises(WouldOverwrite, match="docs"):
        target_of(target).prepare(snapshot.entries, 0)
    restore(snapshot, target, overwrite=True)

    assert os.listdir(outside) == []
    assert look_at(target) == look_at(tree)


def test_a_link_put_into_the_staging_tree_is_not_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    snapshot = back_up(tree)

    def swapping() -> Iterator[tuple[Entry, Iterator[bytes]]]:
        for entry, pieces in snapshot.items():
            if entry.path == b"docs/deep":
                staged = next(target.glob(".kryonix-restore-*")) / "tree" / "docs"
                staged.rename(tmp_path / "aside")
                staged.symlink_to(outside)
            yield entry, pieces

    restoring = target_of(target)
    with pytest.raises(UnsafePath, match="a link or a file"):
        restoring.load(GivenContent(swapping()))

    restoring.roll_back()
    assert os.listdir(outside) == []
    assert not target.exists()


def test_a_directory_of_ours_that_is_a_link_is_refused(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    snapshot = back_up(tree)
    restoring = target_of(target)
    name = restoring._places.replaced
    (target / os.fsdecode(name)).symlink_to(tmp_path)

    with pytest.raises(UnsafePath, match="not made by this restore"):
        restoring.load(GivenContent(snapshot.items()))
