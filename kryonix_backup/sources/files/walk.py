"""
Every entry of a tree, in the order of `sort_key`, held against the same tree's last snapshot.

Only the names of the directories above the present entry are in memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

from kryonix_backup.model import Entry, EntryKind, sort_key
from kryonix_backup.patterns import Patterns
from kryonix_backup.sources.files.folders import KEPT_OPEN, Folder, Handle, open_inside
from kryonix_backup.sources.files.metadata import beside, describe
from kryonix_backup.sources.files.paths import reason_of
from kryonix_backup.sources.files.reading import Content, Context
from kryonix_backup.sources.source import Item

_KINDS = {
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFIFO: EntryKind.FIFO,
    stat.S_IFSOCK: EntryKind.SOCKET,
    stat.S_IFCHR: EntryKind.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryKind.BLOCK_DEVICE,
}
# What changes an attribute or makes a hole changes the ctime, so these hold with the stamp.
_HELD_BY_STAMP = ("xattrs", "holes")


class Previous:
    """The entries of the last snapshot, walked through beside the tree."""

    def __init__(self, entries: Iterator[Entry] | None) -> None:
        self._entries = entries if entries is not None else iter(())
        self._next = next(self._entries, None)

    def find(self, path: bytes) -> Entry | None:
        """The entry of that path; paths are asked for in order."""
        found = self._next
        if found is not None and found.path != path:
            key = sort_key(path)
            while found is not None and sort_key(found.path) < key:
                found = next(self._entries, None)
            self._next = found
        if found is None or found.path != path:
            return None
        self._next = next(self._entries, None)
        return found


class _Level:
    """A directory on the way down: names still to come, and its own item until it is given."""

    __slots__ = ("folder", "names", "prefix", "waiting")

    def __init__(self, folder: Folder, names: list[bytes], waiting: Item | None) -> None:
        self.folder = folder
        self.names = iter(names)
        self.prefix = folder.path + b"/" if folder.path else b""
        self.waiting = waiting


class Walk:
    """One pass through a tree. Problems go to the context's list."""

    def __init__(
        self,
        context: Context,
        patterns: Patterns,
        since: Iterator[Entry] | None,
        *,
        one_file_system: bool,
    ) -> None:
        self._context = context
        self._patterns = patterns
        self._previous = Previous(since)
        self._device = os.fstat(context.root.fd).st_dev if one_file_system else None
        self._levels: list[_Level] = []

    def items(self, names: list[bytes]) -> Iterator[Item]:
        """The root, then everything below it; ``names`` are those in the root."""
        levels = self._levels
        root = self._context.root
        levels.append(_Level(Folder(root, b"", root), names, None))
        self._previous.find(b"")
        yield Item(self._directory(b"", os.fstat(root.fd), root.fd))
        while levels:
            level = levels[-1]
            for name in level.names:
                path = level.prefix + name
                info = self._look(level, name, path)
                if info is None:
                    continue
                if stat.S_ISDIR(info.st_mode):
                    yield from self._descend(level, name, path, info)
                    break
                item = self._leaf(level, name, path, info)
                if item is not None:
                    yield from self._given()
                    yield item
            else:
                levels.pop().folder.rest()

    def _look(self, level: _Level, name: bytes, path: bytes) -> os.stat_result | None:
        try:
            handle = level.folder.handle or level.folder.open()
            info = os.stat(name, dir_fd=handle.fd, follow_symlinks=False)
        except FileNotFoundError:
            self._context.report(path, "vanished while the tree was read")
            return None
        except OSError as error:
            self._context.report(path, f"cannot be looked at: {reason_of(error)}")
            return None
        if self._patterns.all:
            return info
        directory = stat.S_ISDIR(info.st_mode)
        if self._patterns.excludes(path, directory=directory):
            return None
        wanted = directory or self._patterns.includes(path, directory=False)
        return info if wanted else None

    def _given(self) -> Iterator[Item]:
        """The directories above the present entry that were held back so far."""
        if self._patterns.all:
            return
        for level in self._levels:
            if level.waiting is not None:
                yield level.waiting
                level.waiting = None

    # ------------------------------------------------------------------ directories

    def _descend(
        self, level: _Level, name: bytes, path: bytes, info: os.stat_result
    ) -> Iterator[Item]:
        handle, names = self._list(level, name, path, info)
        parent = level.folder.open().fd
        place = handle.fd if handle is not None else beside(parent, name)
        item = Item(self._directory(path, info, place))
        self._previous.find(path)
        entered = _Level(Folder(self._context.root, path, handle), names, item)
        self._levels.append(entered)
        if len(self._levels) > KEPT_OPEN:
            self._levels[-KEPT_OPEN].folder.rest()
        if self._patterns.all:
            entered.waiting = None
            yield item
        elif self._patterns.includes(path, directory=True):
            yield from self._given()

    def _list(
        self, level: _Level, name: bytes, path: bytes, info: os.stat_result
    ) -> tuple[Handle | None, list[bytes]]:
        mine = self._context.user in (0, info.st_uid)
        try:
            parent = level.folder.open().fd
            handle = open_inside(parent, name, os.O_NOATIME if mine else 0)
            if self._device not in (None, info.st_dev):
                return handle, []
            return handle, list_names(handle)
        except OSError as error:
            self._context.report(path, f"the directory cannot be listed: {reason_of(error)}")
            return None, []

    def _directory(self, path: bytes, info: os.stat_result, place: int | bytes) -> Entry:
        meta = describe(info, self._context.owners)
        self._context.xattrs(place, path, meta)
        return Entry(path, EntryKind.DIRECTORY, 0, b"", False, None, meta)

    # ------------------------------------------------------------------ everything else

    def _leaf(self, level: _Level, name: bytes, path: bytes, info: os.stat_result) -> Item | None:
        previous = self._previous.find(path)
        if info.st_nlink > 1:
            first = self._context.first_names.setdefault((info.st_dev, info.st_ino), path)
            if first != path:
                meta = {**describe(info, self._context.owners), "target": first}
                return Item(Entry(path, EntryKind.HARDLINK, 0, b"", False, None, meta))
        if stat.S_ISREG(info.st_mode):
            return self._file(level, path, info, previous)
        return self._special(level, name, path, info)

    def _file(
        self, level: _Level, path: bytes, info: os.stat_result, previous: Entry | None
    ) -> Item:
        if previous is not None and previous.stamp is not None:
            now = (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
            if tuple(previous.stamp) == now and previous.kind is EntryKind.FILE:
                meta = describe(info, self._context.owners)
                for key in _HELD_BY_STAMP:
                    if key in previous.meta:
                        meta[key] = previous.meta[key]
                return Item(
                    Entry(
                        path,
                        EntryKind.FILE,
                        previous.size,
                        previous.refs,
                        previous.indirect,
                        previous.stamp,
                        meta,
                    )
                )
        content = Content(self._context, level.folder, path, info)
        return Item(Entry(path, EntryKind.FILE, info.st_size), content)

    def _special(
        self, level: _Level, name: bytes, path: bytes, info: os.stat_result
    ) -> Item | None:
        kind = _KINDS[stat.S_IFMT(info.st_mode)]
        parent = level.folder.open().fd
        meta: dict[str, Any] = describe(info, self._context.owners)
        if kind is EntryKind.SYMLINK:
            try:
                meta["target"] = os.readlink(name, dir_fd=parent)
            except OSError as error:
                self._context.report(path, f"the link cannot be read: {reason_of(error)}")
                return None
        elif kind in (EntryKind.CHARACTER_DEVICE, EntryKind.BLOCK_DEVICE):
            meta["rdev"] = info.st_rdev
        self._context.xattrs(beside(parent, name), path, meta)
        return Item(Entry(path, kind, 0, b"", False, None, meta))


def list_names(handle: Handle) -> list[bytes]:
    """The names in an open directory, in the order of entries. Raises OSError."""
    return sorted(os.fsencode(name) for name in os.listdir(handle.fd))
