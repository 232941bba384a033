"""
Writing the entries of a snapshot into the staging directory.

A directory gets its metadata when everything in it is made, a file when its content is written; the
time comes last, so that a file with its size, mode and time right is a finished one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import msgpack

from kryonix_backup.errors import UnsafePath
from kryonix_backup.model import Blob, Entry, EntryKind, Problem
from kryonix_backup.sources.files.filling import LARGE_BYTES, Filled, Fillers, fill
from kryonix_backup.sources.files.folders import (
    KEPT_OPEN,
    Folder,
    Handle,
    look,
    open_inside,
    remove_tree,
)
from kryonix_backup.sources.files.metadata import (
    MODE_BITS,
    MetadataWriter,
    Tally,
    beside,
    open_mode,
)
from kryonix_backup.sources.files.paths import check_path, reason_of, restore_error, shown, split
from kryonix_backup.sources.files.staging import (
    DIRECTORIES,
    LEFT_OUT,
    TREE,
    WITHOUT_CONTENT,
    Ledger,
    write_to,
)
from kryonix_backup.sources.source import LoadReport

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_MADE_ON_THE_WAY = 0o755  # for a directory that is not among the entries itself
_MOST_WAITING = 1000  # entries after a file whose content is not written yet
_NODES = {
    EntryKind.FIFO: stat.S_IFIFO,
    EntryKind.SOCKET: stat.S_IFSOCK,
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
}
# Failures that are about one entry; any other is about the whole target and ends the load.
_OF_ONE_ENTRY = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EEXIST, errno.EINVAL, errno.ENAMETOOLONG, errno.ENODEV,
        errno.EOPNOTSUPP, errno.EFBIG, errno.EILSEQ, errno.EOVERFLOW, errno.EMLINK,
    }
)  # fmt: skip


class _Level:
    """A directory that is being filled; ``meta`` is None for one made on the way."""

    __slots__ = ("folder", "meta")

    def __init__(self, folder: Folder, meta: Any) -> None:
        self.folder = folder
        self.meta = meta


class _Filling(NamedTuple):
    """A file whose content is being written by another thread; ``mode`` is what it has so far."""

    fd: int
    mode: int
    filled: Future[Filled]


_Outcome = TypeVar("_Outcome", bound=bytes | _Filling)


class Loader:
    """One run of `load`; ``resumed`` when an earlier one may have left something."""

    def __init__(self, staging: Handle, *, resumed: bool) -> None:
        self._resumed = resumed
        self._root = open_inside(staging.fd, TREE)
        self._levels = [_Level(Folder(self._root, b"", self._root), None)]
        info = os.fstat(self._root.fd)
        self._tally = Tally()
        self._metadata = MetadataWriter((info.st_uid, info.st_gid), self._tally)
        self._umask = _umask()
        self._directories = write_to(staging, DIRECTORIES)
        self._ledger = Ledger(staging, write=True)
        self._problems: list[Problem] = []
        self._entries = self._bytes = 0
        self._links = Folder(self._root, b"", self._root)
        self._fillers = Fillers()
        self._waiting: deque[tuple[Entry, bytes | _Filling]] = deque()  # to be noted, in order
        self._taken = 0
        self._write: dict[EntryKind, Callable[[Entry, Iterable[Blob]], bytes | _Filling]] = {
            EntryKind.FILE: self._file,
            EntryKind.DIRECTORY: self._directory,
            EntryKind.SYMLINK: self._symlink,
            EntryKind.HARDLINK: self._hard_link,
            **dict.fromkeys(_NODES, self._node),
        }

    def run(self, items: Iterable[tuple[Entry, Iterable[Blob]]]) -> LoadReport:
        """Write everything; raises UnsafePath, TargetFull, RestoreError."""
        try:
            for entry, pieces in items:
                self._take(entry, pieces)
                self._settle(_MOST_WAITING)
            self._settle(0)
            while len(self._levels) > 1:
                self._leave()
        finally:
            self._end()
        problems = (*self._problems, *self._tally.problems())
        return LoadReport(self._entries, self._bytes, problems)

    def _end(self) -> None:
        try:
            self._settle(0)  # after a failure, too: the next try need not write it again
        finally:
            self._fillers.close()
            for _, note in self._waiting:
                if isinstance(note, _Filling):
                    os.close(note.fd)
            self._ledger.close()
            self._directories.close()

    def _take(self, entry: Entry, pieces: Iterable[Blob]) -> None:
        path = entry.path
        if path or entry.kind is not EntryKind.DIRECTORY:
            check_path(path)
        note = self._attempt(entry, partial(self._write[entry.kind], entry, pieces))
        self._waiting.append((entry, note))
        self._taken += 1

    def _attempt(self, entry: Entry, step: Callable[[], _Outcome]) -> _Outcome | bytes:
        try:
            return step()
        except OSError as error:
            if error.errno not in _OF_ONE_ENTRY:
                raise restore_error(error, f"{shown(entry.path)} cannot be written") from error
            self._leave_out(entry, error)
            return LEFT_OUT

    def _settle(self, most: int) -> None:
        """Note what became of entries; so many at most wait for content to be written."""
        while self._waiting:
            entry, note = self._waiting[0]
            written = not isinstance(note, _Filling) or note.filled.done()
            if len(self._waiting) <= most and not written:
                return
            self._waiting.popleft()
            if isinstance(note, _Filling):
                note = self._attempt(entry, partial(self._finish, entry, note))
            self._note(entry, note)

    def _note(self, entry: Entry, note: bytes) -> None:
        self._ledger.add(entry.path, note)
        if note is not LEFT_OUT:
            self._entries += 1
            if "changed" in entry.meta:
                self._report(
                    entry.path, "changed while it was backed up; its content may mix two states"
                )

    def _leave_out(self, entry: Entry, error: OSError) -> None:
        device = entry.kind in (EntryKind.CHARACTER_DEVICE, EntryKind.BLOCK_DEVICE)
        why = "only root can make it" if device and error.errno == errno.EPERM else reason_of(error)
        self._report(entry.path, f"could not be restored: {why}")
        if entry.kind is not EntryKind.DIRECTORY and error.errno != errno.EEXIST:
            parent, name = split(entry.path)
            try:
                place = Folder(self._root, parent).open()
                before = os.fstat(place.fd)
                os.unlink(name, dir_fd=place.fd)  # what there is of it is not it
                os.utime(place.fd, ns=(before.st_atime_ns, before.st_mtime_ns))
            except OSError:
                pass  # it was never made

    def _report(self, path: bytes, reason: str) -> None:
        self._problems.append(Problem(shown(path), reason))

    # ------------------------------------------------------------------ directories

    def _at(self, path: bytes) -> int:
        """The open directory of that path; it becomes the current one."""
        level = self._levels[-1]
        while level.folder.path != path:
            above = level.folder.path
            if above and not path.startswith(above + b"/"):
                self._leave()
            else:
                rest = path[len(above) + 1 :] if above else path
                self._enter(rest.partition(b"/")[0], None)
            level = self._levels[-1]
        handle = level.folder.handle or level.folder.open()
        return handle.fd

    def _directory(self, entry: Entry, pieces: Iterable[Blob]) -> bytes:
        if entry.path:
            parent, name = split(entry.path)
            self._at(parent)
            self._enter(name, entry.meta)
        self._directories.write(msgpack.packb([entry.path, dict(entry.meta)]))
        return WITHOUT_CONTENT

    def _enter(self, name: bytes, meta: Any) -> None:
        parent = self._levels[-1].folder
        here = parent.open().fd
        try:
            os.mkdir(name, 0o700, dir_fd=here)
        except FileExistsError:
            self._take_over(here, name)
        path = parent.path + b"/" + name if parent.path else name
        self._levels.append(_Level(Folder(self._root, path, open_inside(here, name)), meta))
        if len(self._levels) > KEPT_OPEN:
            self._levels[-KEPT_OPEN].folder.rest()

    def _take_over(self, here: int, name: bytes) -> None:
        """Make an earlier try's directory ours to write in, or something else's place free."""
        info = look(here, name)
        if not self._resumed or info is None:
            return  # what it is shows when it is opened
        if stat.S_ISDIR(info.st_mode):
            os.chmod(name, 0o700, dir_fd=here)
        else:
            os.unlink(name, dir_fd=here)
            os.mkdir(name, 0o700, dir_fd=here)

    def _leave(self) -> None:
        level = self._levels.pop()
        fd = level.folder.open().fd
        try:
            if level.meta is None:
                os.fchmod(fd, _MADE_ON_THE_WAY)
            else:
                meta = {**level.meta, "mode": open_mode(level.meta["mode"])}
                self._metadata.of_new(fd, level.folder.path, meta, 0o700)
        except OSError as error:
            raise restore_error(error, shown(level.folder.path)) from error
        level.folder.rest()

    # ------------------------------------------------------------------ files

    def _file(self, entry: Entry, pieces: Iterable[Blob]) -> bytes | _Filling:
        parent, name = split(entry.path)
        here = self._at(parent)
        mode = entry.meta["mode"] & 0o777
        if "xattrs" in entry.meta:
            mode |= 0o600  # only who may write a file may give it attributes
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=here)
        except FileExistsError:
            if not self._resumed:
                raise
            kept = self._kept(entry, here, name)
            if kept is not None:
                return kept
            remove_tree(here, name)
            fd = os.open(name, _CREATE, mode, dir_fd=here)
        return self._filled(entry, fd, mode & ~self._umask, pieces)

    def _filled(self, entry: Entry, fd: int, mode: int, pieces: Iterable[Blob]) -> bytes | _Filling:
        holes = entry.meta.get("holes", ())
        try:
            if entry.content_bytes >= LARGE_BYTES:
                return _Filling(fd, mode, self._fillers.fill(fd, pieces, holes))
            filled = fill(fd, pieces, holes)
        except BaseException:
            os.close(fd)
            raise
        return self._complete(entry, fd, mode, filled)

    def _finish(self, entry: Entry, filling: _Filling) -> bytes:
        try:
            filled = filling.filled.result()
        except BaseException:
            wait([filling.filled])  # the number of what is closed may be another file's next
            os.close(filling.fd)
            raise
        return self._complete(entry, filling.fd, filling.mode, filled)

    def _complete(self, entry: Entry, fd: int, mode: int, filled: Filled) -> bytes:
        try:
            self._metadata.of_new(fd, entry.path, entry.meta, mode)
        finally:
            os.close(fd)
        self._bytes += filled.bytes
        return filled.digest

    def _kept(self, entry: Entry, here: int, name: bytes) -> bytes | None:
        """The digest of a file that an earlier try finished; None if it has to be written."""
        digest = self._ledger.earlier(self._taken, entry.path)
        info = look(here, name)
        if digest in (None, LEFT_OUT) or info is None or not stat.S_ISREG(info.st_mode):
            return None
        meta = entry.meta
        same = (info.st_size, info.st_mtime_ns, info.st_mode & MODE_BITS) == (
            entry.size,
            meta["mtime"],
            meta["mode"],
        )
        return digest if same else None

    # ------------------------------------------------------------------ everything else

    def _symlink(self, entry: Entry, pieces: Iterable[Blob]) -> bytes:
        parent, name = split(entry.path)
        here = self._at(parent)
        target = entry.meta["target"]
        if b"\0" in target:
            raise UnsafePath(f"the target of the link {entry.text!r} is not a path")
        self._make(here, name, lambda: os.symlink(target, name, dir_fd=here))
        self._metadata.of_new(beside(here, name), entry.path, entry.meta, None)
        return WITHOUT_CONTENT

    def _node(self, entry: Entry, pieces: Iterable[Blob]) -> bytes:
        parent, name = split(entry.path)
        here = self._at(parent)
        mode = _NODES[entry.kind] | entry.meta["mode"] & 0o777
        device = entry.meta.get("rdev", 0)
        self._make(here, name, lambda: os.mknod(name, mode, device, dir_fd=here))
        made = stat.S_IMODE(mode) & ~self._umask
        self._metadata.of_new(beside(here, name), entry.path, entry.meta, made)
        return WITHOUT_CONTENT

    def _hard_link(self, entry: Entry, pieces: Iterable[Blob]) -> bytes | _Filling:
        first = bytes(entry.meta["target"])
        check_path(first)
        self._settle(0)  # where its first name cannot be written, it is not to be linked to
        parent, name = split(entry.path)
        here = self._at(parent)
        there, first_name = split(first)
        try:
            source = self._link_source(there)
            self._make(
                here,
                name,
                lambda: os.link(
                    first_name, name, src_dir_fd=source, dst_dir_fd=here, follow_symlinks=False
                ),
            )
        except FileNotFoundError:
            return self._instead_of_link(entry, first, iter(pieces))
        return WITHOUT_CONTENT

    def _link_source(self, path: bytes) -> int:
        if self._links.path != path:
            self._links = Folder(self._root, path)
        return self._links.open().fd

    def _instead_of_link(
        self, entry: Entry, first: bytes, pieces: Iterator[Blob]
    ) -> bytes | _Filling:
        content = next(pieces, None)
        if content is None:
            self._report(entry.path, f"its first name {shown(first)!r} was not restored")
            return LEFT_OUT
        return self._file(entry, chain((content,), pieces))

    def _make(self, here: int, name: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            if not self._resumed:
                raise
            remove_tree(here, name)
            make()


def _umask() -> int:
    """The bits that new files lack; all of them where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o777
