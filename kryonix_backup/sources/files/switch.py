"""
Moving what was loaded into place, and back.

Every step looks first whether it was made already, by the inode of what is where, so that both
directions can be run again after a crash at any moment.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from kryonix_backup.errors import RestoreError, WouldOverwrite
from kryonix_backup.sources.files.folders import (
    Folder,
    Handle,
    look,
    make_beneath,
    remove_tree,
)
from kryonix_backup.sources.files.journal import Begin, Close, Merge, Move, Row, read_journal
from kryonix_backup.sources.files.kernel import rename_new
from kryonix_backup.sources.files.metadata import MODE_BITS, MetadataWriter, Tally, open_mode
from kryonix_backup.sources.files.paths import shown, split
from kryonix_backup.sources.files.staging import TREE

UNDONE = b"undone"

log = logging.getLogger(__name__)


class _Tree:
    """One of the trees that entries move between, with the directory used last open."""

    def __init__(self, root: Handle) -> None:
        self.root = root
        self._folder = Folder(root, b"", root)

    def at(self, path: bytes) -> int | None:
        """The open directory of that path, or None where there is none."""
        if self._folder.path != path:
            self._folder = Folder(self.root, path)
        try:
            return self._folder.open().fd
        except FileNotFoundError:
            return None

    def look(self, path: bytes) -> os.stat_result | None:
        """What is at that path."""
        parent, name = split(path)
        place = self.at(parent)
        return look(place, name) if place is not None else None


class Switch:
    """The moves of one restore's journal, made or taken back."""

    def __init__(self, target: Handle, replaced: Handle) -> None:
        self._target = _Tree(target)
        self._replaced = replaced
        self._metadata = MetadataWriter((-1, -1), Tally())
        self._labels = count()

    def _rows(self, *, backwards: bool = False) -> Iterator[Row]:
        return read_journal(self._replaced, backwards=backwards)

    # ------------------------------------------------------------------ forwards

    def make(self, staging: Handle | None) -> None:
        """Make every move that is not made yet; raises WouldOverwrite, RestoreError."""
        self._unlock()
        if staging is not None:
            tree = _Tree(make_beneath(staging, TREE))
            saved = _Tree(make_beneath(self._replaced, TREE))
            for row in self._rows():
                if isinstance(row, Move):
                    self._make(row, tree, saved)
        for row in self._rows(backwards=True):
            if isinstance(row, Merge) and row.path:
                self._settle(row)
            elif isinstance(row, Close):
                self._mode(row.path, row.mode)

    def settle_root(self) -> None:
        """Give the target directory itself its metadata: the last change that shows in it."""
        for row in self._rows():
            if isinstance(row, Merge):
                self._settle(row)
                break
        for problem in self._metadata.tally.problems():
            log.warning("metadata not restored", extra=problem._asdict())

    def _make(self, move: Move, tree: _Tree, saved: _Tree) -> None:
        staged = tree.look(move.path)
        if staged is None or staged.st_ino != move.inode:
            return  # made by an earlier run
        parent, name = split(move.path)
        source, target = tree.at(parent), self._target.at(parent)
        if source is None or target is None:
            raise RestoreError(f"the directory {shown(parent)} is no longer in the target")
        if move.over and look(target, name) is not None:
            keep = make_beneath(saved.root, parent)
            _rename(target, name, keep.fd, name, move.path)
        _rename(source, name, target, name, move.path)

    def _settle(self, merge: Merge) -> None:
        if merge.after is None:
            self._mode(merge.path, merge.before["mode"])
            return
        place = self._target.at(merge.path)
        if place is not None:
            self._metadata.of_existing(place, merge.path, merge.after)

    def _mode(self, path: bytes, mode: int) -> None:
        place = self._target.at(path)
        if place is not None and os.fstat(place).st_mode & MODE_BITS != mode:
            os.fchmod(place, mode)

    def _unlock(self) -> None:
        """Lend this user, if he is not root, what the owner of a directory may not do in it."""
        if os.geteuid() == 0:
            return
        self._lend(b"")
        for row in self._rows():
            if isinstance(row, Close) or (isinstance(row, Merge) and _is_shut(row.before)):
                self._lend(row.path)

    def _lend(self, path: bytes) -> None:
        parent, name = split(path)
        place = self._target.at(parent)
        info = look(place, name or b".") if place is not None else None
        if info is None or not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
            return
        os.chmod(name or b".", open_mode(info.st_mode & MODE_BITS), dir_fd=place)

    # ------------------------------------------------------------------ backwards

    def take_back(self) -> list[bytes]:
        """
        Put back everything that was there, up to the target's own metadata.

        The result is what could not be put back, because something else has its name by now.
        """
        self._unlock()
        out = make_beneath(self._replaced, UNDONE)
        saved = _Tree(make_beneath(self._replaced, TREE))
        stuck = []
        self._labels = count(len(os.listdir(out.fd)))
        for row in self._rows(backwards=True):
            if isinstance(row, Move):
                if not self._take_back(row, saved, out):
                    stuck.append(row.path)
            elif isinstance(row, Merge) and row.path:
                place = self._target.at(row.path)
                if place is not None:
                    self._metadata.of_existing(place, row.path, row.before)
        return stuck

    def _take_back(self, move: Move, saved: _Tree, out: Handle) -> bool:
        parent, name = split(move.path)
        target = self._target.at(parent)
        there = look(target, name) if target is not None else None
        if target is not None and there is not None and there.st_ino == move.inode:
            label = b"%d" % next(self._labels)
            os.rename(name, label, src_dir_fd=target, dst_dir_fd=out.fd)
            there = None
        if not move.over or saved.look(move.path) is None:
            return True
        source = saved.at(parent)
        if source is None or target is None or there is not None:
            return False
        rename_new(source, name, target, name)
        return True

    def begun(self) -> tuple[Begin, Merge]:
        """The first two rows: what was made for the target, and how its root was."""
        rows = self._rows()
        first, second = next(rows), next(rows)
        assert isinstance(first, Begin)
        assert isinstance(second, Merge)
        return first, second

    def restore_root(self, merge: Merge) -> None:
        """Give the target directory the metadata it had."""
        self._metadata.of_existing(self._target.root.fd, b"", merge.before)


def _is_shut(meta: Mapping[str, Any]) -> bool:
    return open_mode(meta["mode"]) != int(meta["mode"])


def _rename(source: int, name: bytes, target: int, new: bytes, path: bytes) -> None:
    try:
        rename_new(source, name, target, new)
    except FileExistsError as error:
        raise WouldOverwrite(
            f"{shown(path)} has appeared in the target since the restore began",
            "Take it out of the way and run the restore again, or roll it back.",
        ) from error


def clear_replaced(target: Handle, name: bytes, replaced: Handle, last: bytes) -> None:
    """Remove a directory of ours with the file ``last`` after everything else in it."""
    for each in os.listdir(replaced.fd):
        if os.fsencode(each) != last:
            remove_tree(replaced.fd, os.fsencode(each))
    remove_tree(target.fd, name)
