"""
Which moves bring what was loaded into place; and, before anything is loaded, whether they could.

A directory that the target lacks is moved whole. One that it has takes in the entries, and the
metadata if it was loaded itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from kryonix_backup.errors import RestoreError, TargetFull, UnsafePath, WouldOverwrite
from kryonix_backup.model import MIB, Entry, EntryKind
from kryonix_backup.sources.files.folders import Folder, Handle, look, open_inside
from kryonix_backup.sources.files.journal import Begin, Close, Merge, Move, Row
from kryonix_backup.sources.files.metadata import Owners, describe, open_mode, read_xattrs
from kryonix_backup.sources.files.paths import check_path, reason_of, shown, split
from kryonix_backup.sources.files.staging import TREE, Before, LoadedDirectories
from kryonix_backup.sources.files.walk import list_names

_SHOWN = 3
# Room for what a restore writes beside content: a block and an inode for each entry, and the
# file system's own records.
_BYTES_AN_ENTRY = 4096
_MARGIN_BYTES = 16 * MIB


class Conflicts:
    """Entries that would be replaced: the first few, and how many."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._count = 0

    def add(self, path: bytes) -> None:
        """Note one."""
        self._count += 1
        if len(self._first) < _SHOWN:
            self._first.append(repr(shown(path)))

    def settle(self, directory: bytes) -> None:
        """Raise WouldOverwrite if there is any."""
        if self._count:
            more = self._count - len(self._first)
            rest = f" and {more} more" if more else ""
            raise WouldOverwrite(
                f"{shown(directory)} holds entries that the restore would replace:"
                f" {', '.join(self._first)}{rest}"
            )


class Survey:
    """A look at the target before the load: paths, room, and what is in the way."""

    def __init__(self, directory: bytes, target: Handle | None, *, overwrite: bool) -> None:
        self._directory = directory
        self._target = target
        self._overwrite = overwrite
        self._conflicts = Conflicts()
        self._absent: bytes | None = None
        self._folder = Folder(target, b"", target) if target is not None else None
        self._device = os.fstat(target.fd).st_dev if target is not None else 0

    def look(self, entries: Iterable[Entry]) -> int:
        """How many entries there are; raises WouldOverwrite, UnsafePath, RestoreError."""
        count = 0
        for entry in entries:
            count += 1
            _check_entry(entry)
            if self._folder is not None and entry.path:
                self._look_at(entry)
        self._conflicts.settle(self._directory)
        return count

    def _look_at(self, entry: Entry) -> None:
        path = entry.path
        if self._absent is not None and path.startswith(self._absent):
            return
        parent, name = split(path)
        folder = self._enter(parent)
        if folder is None:
            return
        there = look(folder.open().fd, name)
        directory = entry.kind is EntryKind.DIRECTORY
        if there is None:
            self._absent = path + b"/" if directory else self._absent
        elif not (directory and stat.S_ISDIR(there.st_mode)):
            self._in_the_way(path)
        elif there.st_dev != self._device:
            raise other_file_system(path)

    def _enter(self, parent: bytes) -> Folder | None:
        """The directory an entry will be in; None if it is not there or will be replaced."""
        assert self._folder is not None
        assert self._target is not None
        if self._folder.path == parent:
            return self._folder
        above = b""
        for name in parent.split(b"/") if parent else ():
            place = Folder(self._target, above).open()
            above = above + b"/" + name if above else name
            info = look(place.fd, name)
            if info is None or not stat.S_ISDIR(info.st_mode):
                self._absent = above + b"/"
                if info is not None and not self._overwrite:
                    self._in_the_way(above)
                return None
        self._folder = Folder(self._target, parent)
        return self._folder

    def _in_the_way(self, path: bytes) -> None:
        self._absent = path + b"/"
        if not self._overwrite:
            self._conflicts.add(path)


def _check_entry(entry: Entry) -> None:
    if entry.path or entry.kind is not EntryKind.DIRECTORY:
        check_path(entry.path)
    target = entry.meta.get("target")
    if entry.kind is EntryKind.HARDLINK:
        check_path(bytes(target or b""))
    elif target is not None and b"\0" in target:
        raise UnsafePath(f"the target of the link {entry.text!r} is not a path")


def check_room(directory: bytes, bytes_needed: int, entries: int) -> None:
    """Raise TargetFull if the file system of the directory lacks the room."""
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    room = os.statvfs(directory)
    free = room.f_bavail * room.f_frsize
    needed = bytes_needed + entries * _BYTES_AN_ENTRY + _MARGIN_BYTES
    if needed > free:
        raise TargetFull(
            f"the restore needs {needed // MIB + 1} MiB, and {shown(directory)} has"
            f" {free // MIB} MiB left"
        )
    if room.f_files and entries > room.f_favail:
        raise TargetFull(
            f"the restore makes {entries} entries, and {shown(directory)} has room for"
            f" {room.f_favail}"
        )


def other_file_system(path: bytes) -> RestoreError:
    """A directory into which nothing can be moved in one step."""
    return RestoreError(
        f"{shown(path)} in the target is on another file system",
        "Restore that directory by itself, with --include and --to.",
    )


class MovePlan:
    """The moves of one commit, in the order of entries."""

    def __init__(
        self, directory: bytes, target: Handle, staging: Handle, before: Before, *, overwrite: bool
    ) -> None:
        self._directory = directory
        self._target = target
        self._tree = open_inside(staging.fd, TREE)
        self._staging = staging
        self._before = before
        self._overwrite = overwrite
        self._device = os.fstat(target.fd).st_dev
        self._owners = Owners()
        self._conflicts = Conflicts()
        self._places = [Folder(self._tree, b"", self._tree), Folder(target, b"", target)]

    def rows(self) -> Iterator[Row]:
        """What to do; raises WouldOverwrite at its end if anything is in the way."""
        loaded = LoadedDirectories(self._staging)
        try:
            yield Begin(self._before.made)
            yield from self._merge(b"", loaded)
            levels = [(b"", iter(list_names(self._tree)))]
            while levels:
                path, names = levels[-1]
                name = next(names, None)
                if name is None:
                    levels.pop()
                    continue
                below = path + b"/" + name if path else name
                row = self._place(path, name, below)
                if row is not None:
                    yield row
                    continue
                yield from self._merge(below, loaded)
                levels.append((below, iter(list_names(Folder(self._tree, below).open()))))
            for found, meta in loaded.until(None):
                if open_mode(meta["mode"]) != meta["mode"]:
                    yield Close(found, meta["mode"])
        finally:
            loaded.close()
        self._conflicts.settle(self._directory)

    def _place(self, parent: bytes, name: bytes, path: bytes) -> Move | None:
        """How one entry gets into place; None for a directory that is there already."""
        staged = look(self._open(self._tree, parent), name)
        there = look(self._open(self._target, parent), name)
        assert staged is not None
        if there is None:
            return Move(path, staged.st_ino, False)
        if stat.S_ISDIR(staged.st_mode) and stat.S_ISDIR(there.st_mode):
            if there.st_dev != self._device:
                raise other_file_system(path)
            return None
        if not self._overwrite:
            self._conflicts.add(path)
        return Move(path, staged.st_ino, True)

    def _open(self, root: Handle, path: bytes) -> int:
        at = 0 if root is self._tree else 1
        folder = self._places[at]
        if folder.path != path:
            folder = self._places[at] = Folder(root, path)
        return folder.open().fd

    def _merge(self, path: bytes, loaded: LoadedDirectories) -> Iterator[Row]:
        after = None
        for found, meta in loaded.until(path):
            if found == path:
                after = meta
            elif open_mode(meta["mode"]) != meta["mode"]:
                yield Close(found, meta["mode"])
        handle = Folder(self._target, path).open()
        info = os.fstat(handle.fd)
        before: dict[str, Any] = describe(info, self._owners)
        try:
            before["xattrs"] = read_xattrs(handle.fd)
        except OSError as error:
            raise RestoreError(
                f"the extended attributes of {shown(path)} in the target cannot be read:"
                f" {reason_of(error)}"
            ) from error
        if not path and self._before.mtime is not None:
            before["mtime"] = self._before.mtime
        yield Merge(path, before, after)
