"""
Reading the content of one file, and noticing when it changes meanwhile.

A *stamp* is [inode, size, mtime_ns, ctime_ns] as they were when the file was opened. Where the
last change is so close to that moment that another one could carry the same time, or the file
changed while it was read, a fifth member makes the stamp unlike any: such a file is read again.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from kryonix_backup.clock import Clock
from kryonix_backup.errors import SourceUnreadable
from kryonix_backup.model import Entry, EntryKind, Problem
from kryonix_backup.sources.files.folders import Folder, Handle
from kryonix_backup.sources.files.kernel import open_beneath
from kryonix_backup.sources.files.metadata import Owners, describe, read_xattrs
from kryonix_backup.sources.files.paths import reason_of, shown

# The coarsest times in use: FAT's, whose step is 2 s. Most are of a clock tick, 4 ms.
GRANULARITY_NS = 2_000_000_000
DOUBTFUL = 1
_MOST_HOLES = 4096  # in one entry's meta; smaller ones are then read as the zeros they are

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe put in its place must not hang us


class Context:
    """What all the readers of one dump share."""

    def __init__(self, root: Handle, owners: Owners, problems: list[Problem], clock: Clock) -> None:
        self.root = root
        self.owners = owners
        self.problems = problems
        self.clock = clock
        self.first_names: dict[tuple[int, int], bytes] = {}
        """The path that each inode with several names was first seen at."""
        self.user = os.geteuid()

    def report(self, path: bytes, reason: str) -> None:
        """Note a problem; a list's append needs no lock."""
        self.problems.append(Problem(shown(path), reason))

    def xattrs(self, place: int | bytes, path: bytes, meta: dict[str, Any]) -> None:
        """Put the extended attributes into ``meta``, if there are any."""
        try:
            found = read_xattrs(place)
        except OSError as error:
            self.report(path, f"its extended attributes cannot be read: {reason_of(error)}")
            return
        if found:
            meta["xattrs"] = found


class Content:
    """Opens the content of one file that the walk has seen."""

    __slots__ = ("_context", "_folder", "_inode", "_mine", "_path")

    def __init__(self, context: Context, folder: Folder, path: bytes, info: os.stat_result) -> None:
        self._context = context
        self._folder = folder
        self._path = path
        self._mine = context.user in (0, info.st_uid)
        self._inode = (info.st_dev, info.st_ino) if info.st_nlink > 1 else None

    def __call__(self) -> FileReader:
        """Raises SourceUnreadable."""
        try:
            fd = self._open()
        except OSError as error:
            # A further name of the same inode, still to come, then stands for itself.
            if self._inode is not None:
                self._context.first_names.pop(self._inode, None)
            raise SourceUnreadable(_why(error, self._path)) from error
        try:
            return FileReader(self._context, self._path, fd)
        except OSError as error:
            os.close(fd)
            raise SourceUnreadable(_why(error, self._path)) from error
        except SourceUnreadable:
            os.close(fd)
            raise

    def _open(self) -> int:
        if self._mine:
            try:
                return self._open_with(_READ | os.O_NOATIME)
            except PermissionError:
                pass  # it may belong to someone else by now
        return self._open_with(_READ)

    def _open_with(self, flags: int) -> int:
        handle = self._folder.handle  # held here, so that it stays open
        if handle is None:
            return open_beneath(self._context.root.fd, self._path, flags)
        return os.open(self._path.rpartition(b"/")[2], flags, dir_fd=handle.fd)


class FileReader:
    """One open file. Raises SourceUnreadable, and then it is closed."""

    __slots__ = (
        "_at", "_before", "_context", "_cut", "_doubtful", "_end", "_fd", "_holes", "_path",
        "_ranges",
    )  # fmt: skip

    def __init__(self, context: Context, path: bytes, fd: int) -> None:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise SourceUnreadable(f"{shown(path)} is not a regular file any more")
        self._context = context
        self._path = path
        self._before = info
        self._doubtful = context.clock.now().timestamp() * 1e9 - info.st_ctime_ns < GRANULARITY_NS
        self._cut = False
        self._at, self._end = 0, info.st_size
        self._holes: list[list[int]] = []
        self._ranges: list[tuple[int, int]] = []
        if info.st_blocks * 512 < info.st_size:
            self._holes = find_holes(fd, info.st_size)
            self._ranges = data_ranges(self._holes, info.st_size)
            self._at, self._end = self._ranges.pop() if self._ranges else (0, 0)
        self._fd = fd  # from here on it is closed with the reader

    def readinto(self, view: memoryview) -> int:
        """Fill a part of ``view`` with the next data; holes are passed over."""
        while self._at >= self._end:
            if not self._ranges:
                return 0
            self._at, self._end = self._ranges.pop()
        left = self._end - self._at
        part = view if len(view) <= left else view[:left]
        try:
            count = os.preadv(self._fd, [part], self._at)
        except OSError as error:
            self._close()
            raise SourceUnreadable(_why(error, self._path)) from error
        if count == 0 and len(part):
            self._cut = True
            self._end = self._at
            self._ranges.clear()
        self._at += count
        return count

    def close(self) -> Entry:
        """The entry as it is to be recorded; a change meanwhile is reported and marked."""
        before = self._before
        try:
            after = os.fstat(self._fd)
            meta = describe(before, self._context.owners)
            self._context.xattrs(self._fd, self._path, meta)
        except OSError as error:
            raise SourceUnreadable(_why(error, self._path)) from error
        finally:
            self._close()
        stamp = [before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns]
        changed = self._cut or stamp != [
            after.st_ino, after.st_size, after.st_mtime_ns, after.st_ctime_ns,
        ]  # fmt: skip
        if changed:
            meta["changed"] = True
            self._context.report(self._path, "changed while it was read")
        if self._holes:
            holes = [hole for hole in self._holes if not self._cut or hole[0] < self._at]
            if holes:
                meta["holes"] = holes
        if changed or self._doubtful:
            stamp.append(DOUBTFUL)
        return Entry(self._path, EntryKind.FILE, before.st_size, b"", False, stamp, meta)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)


def find_holes(fd: int, size: int) -> list[list[int]]:
    """
    Where a file holds nothing, as [offset, length] in order.

    At most 4096 of them: from there on the least ones are left out.
    """
    holes: list[list[int]] = []
    at = least = 0
    while at < size:
        data = min(_seek_data(fd, at, size), size)
        if data - at > least:
            holes.append([at, data - at])
        if len(holes) > _MOST_HOLES:
            least = max(2 * least, 4096)
            holes = [hole for hole in holes if hole[1] > least]
        at = os.lseek(fd, data, os.SEEK_HOLE) if data < size else size
    return holes


def _seek_data(fd: int, at: int, size: int) -> int:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole from here on
            return size
        if error.errno == errno.EINVAL:  # a file system without holes
            return at
        raise


def data_ranges(holes: list[list[int]], size: int) -> list[tuple[int, int]]:
    """What is between the holes, as (start, end), the last first."""
    ranges = []
    at = 0
    for offset, length in holes:
        if offset > at:
            ranges.append((at, offset))
        at = offset + length
    if at < size:
        ranges.append((at, size))
    ranges.reverse()
    return ranges


def _why(error: OSError, path: bytes) -> str:
    name = shown(path)
    if error.errno in (errno.ENOENT, errno.ESTALE):
        return f"{name} vanished before it could be read"
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return f"{name} was replaced by something else before it could be read"
    return f"{name} cannot be read: {reason_of(error)}"
