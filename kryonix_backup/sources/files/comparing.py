"""Reading what was loaded once more, and holding it against what it should be."""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from blake3 import blake3

from kryonix_backup.model import MIB, Entry, EntryKind, Problem
from kryonix_backup.sources.files.folders import Folder, Handle, look, open_inside
from kryonix_backup.sources.files.metadata import (
    MODE_BITS,
    Owners,
    beside,
    differences,
    differing_xattrs,
    open_mode,
)
from kryonix_backup.sources.files.paths import reason_of, split
from kryonix_backup.sources.files.reading import data_ranges
from kryonix_backup.sources.files.staging import LEFT_OUT, TREE, WITHOUT_CONTENT, Ledger

_FORMATS = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.FIFO: stat.S_IFIFO,
    EntryKind.SOCKET: stat.S_IFSOCK,
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
}
_DEVICES = (EntryKind.CHARACTER_DEVICE, EntryKind.BLOCK_DEVICE)


# Reading and hashing a file of this size lets other threads run most of the time; for smaller ones
# handing them over costs more than it wins.
_LARGE_BYTES = MIB
_THREADS = 2
_MOST_WAITING = 1000


class Comparison:
    """One run of `compare`; what `load` reported as left out is not reported again."""

    def __init__(self, staging: Handle) -> None:
        self._check = _Check(open_inside(staging.fd, TREE), Owners())
        self._ledger = Ledger(staging, write=False)
        self._problems: list[tuple[int, Problem]] = []
        self._waiting: deque[tuple[int, Future[Problem | None]]] = deque()

    def run(self, entries: Iterable[Entry]) -> list[Problem]:
        """What is not as it should be, in the order of entries."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="compare") as pool:
            try:
                for number, entry in enumerate(entries):
                    self._take(pool, number, entry)
                while self._waiting:
                    self._settle()
            finally:
                for _, future in self._waiting:
                    future.cancel()
                self._ledger.close()
        return [problem for _, problem in sorted(self._problems)]

    def _take(self, pool: ThreadPoolExecutor, number: int, entry: Entry) -> None:
        noted = self._ledger.next(entry.path)
        if noted is None:
            self._note(number, Problem(entry.text, "was not loaded"))
        elif noted == LEFT_OUT or not entry.path:
            return
        elif entry.kind is EntryKind.FILE and entry.size >= _LARGE_BYTES:
            self._waiting.append((number, pool.submit(self._check.problem, entry, noted)))
            if len(self._waiting) > _MOST_WAITING:
                self._settle()
        else:
            self._note(number, self._check.problem(entry, noted))

    def _settle(self) -> None:
        number, future = self._waiting.popleft()
        self._note(number, future.result())

    def _note(self, number: int, problem: Problem | None) -> None:
        if problem is not None:
            self._problems.append((number, problem))


class _Check(threading.local):
    """A look at loaded entries, one by one; each thread has a folder and a buffer of its own."""

    def __init__(self, root: Handle, owners: Owners) -> None:
        self._root = root
        self._owners = owners
        self._folder = Folder(root, b"", root)
        self._buffer = memoryview(bytearray(MIB))

    def problem(self, entry: Entry, noted: bytes) -> Problem | None:
        """What is wrong with one entry."""
        try:
            found = self._differences(entry, noted)
        except OSError as error:
            return Problem(entry.text, f"cannot be read back: {reason_of(error)}")
        return Problem(entry.text, f"differs in {', '.join(found)}") if found else None

    def _differences(self, entry: Entry, noted: bytes) -> list[str]:
        parent, name = split(entry.path)
        if self._folder.path != parent:
            self._folder = Folder(self._root, parent)
        here = (self._folder.handle or self._folder.open()).fd
        info = look(here, name)
        if info is None:
            return ["being there at all"]
        if entry.kind is EntryKind.HARDLINK:
            if noted == WITHOUT_CONTENT:
                return self._link(entry, info)
            entry = entry._replace(kind=EntryKind.FILE)  # its content was given instead
        if stat.S_IFMT(info.st_mode) != _FORMATS[entry.kind]:
            return ["kind"]
        return self._of_kind(entry, here, name, info, noted)

    def _of_kind(
        self, entry: Entry, here: int, name: bytes, info: os.stat_result, noted: bytes
    ) -> list[str]:
        kind, meta = entry.kind, entry.meta
        if kind is EntryKind.DIRECTORY:
            meta = {**meta, "mode": open_mode(meta["mode"])}
        found = differences(info, meta, self._owners, link=kind is EntryKind.SYMLINK)
        if kind is EntryKind.FILE:
            return found + self._content(here, name, info, meta, noted)
        if kind is EntryKind.SYMLINK and os.readlink(name, dir_fd=here) != meta["target"]:
            found.append("target")
        if kind in _DEVICES and info.st_rdev != meta["rdev"]:
            found.append("device number")
        return found + differing_xattrs(beside(here, name), meta.get("xattrs", {}))

    def _link(self, entry: Entry, info: os.stat_result) -> list[str]:
        parent, name = split(bytes(entry.meta["target"]))
        handle = Folder(self._root, parent).open()
        first = look(handle.fd, name)
        same = first is not None and first.st_ino == info.st_ino
        return [] if same else ["being a name of the same file"]

    def _content(
        self, here: int, name: bytes, info: os.stat_result, meta: Any, noted: bytes
    ) -> list[str]:
        with _open_whatever_its_mode(here, name, info) as fd:
            found = differing_xattrs(fd, meta.get("xattrs", {}))
            if self._digest(fd, info.st_size, meta.get("holes", ())) != noted:
                found.append("content")
            return found

    def _digest(self, fd: int, size: int, holes: Any) -> bytes:
        hasher = blake3()
        for start, end in reversed(data_ranges(holes, size)):
            at = start
            while at < end:
                view = self._buffer[: min(len(self._buffer), end - at)]
                count = os.preadv(fd, [view], at)
                if not count:
                    break
                hasher.update(view[:count])
                at += count
        return hasher.digest()


@contextmanager
def _open_whatever_its_mode(here: int, name: bytes, info: os.stat_result) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_NOFOLLOW
    lent = False
    try:
        fd = os.open(name, flags, dir_fd=here)
    except PermissionError:
        # A file that its own owner may not read, and we are not root: lend ourselves the right.
        os.chmod(name, info.st_mode & MODE_BITS | 0o400, dir_fd=here)
        fd = os.open(name, flags, dir_fd=here)
        lent = True
    try:
        yield fd
    finally:
        if lent:
            os.fchmod(fd, info.st_mode & MODE_BITS)
        os.close(fd)
