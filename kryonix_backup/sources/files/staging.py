"""
The directories of our own in a target, and the notes that they hold.

    .kryonix-restore-ID/     what is being loaded; for the restoring user alone
        tree/                the entries, with their metadata
        directories          path and meta of every directory that was loaded, in order
        ledger               one row for every entry that was given to load, in order
        before               the directories made for the target, its time before the restore
    .kryonix-replaced-ID/    what `commit` moved out of the way
        journal              every move, written before the first is made
        tree/                the entries that were replaced
        undone/              what `roll_back` took out again
        done                 there when the commit is complete
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

from kryonix_backup.errors import UnsafePath
from kryonix_backup.model import RestoreId, sort_key
from kryonix_backup.sources.files.folders import (
    Handle,
    look,
    make_beneath,
    open_inside,
    open_root,
    remove_tree,
    writable,
)
from kryonix_backup.sources.files.paths import shown

TREE = b"tree"
DIRECTORIES = b"directories"
LEDGER = b"ledger"
BEFORE = b"before"

_ROW = struct.Struct("<I32s")
ROW_BYTES = _ROW.size
LEFT_OUT = bytes(32)
WITHOUT_CONTENT = b"\x01" + bytes(31)
_INHERITED = ("system.posix_acl_default", "system.posix_acl_access")


class Before(NamedTuple):
    """How the target was before the restore: what had to be made for it, and its time."""

    made: list[bytes]
    mtime: int | None


class Places:
    """The names of one restore's directories in its target."""

    def __init__(self, directory: bytes, restore: RestoreId) -> None:
        self.directory = directory
        self.restore = restore.encode()
        self.staging = b".kryonix-restore-" + self.restore
        self.replaced = b".kryonix-replaced-" + self.restore

    def target(self) -> Handle | None:
        """The target, open; None where there is none. Raises OSError."""
        try:
            return open_root(self.directory)
        except FileNotFoundError:
            return None

    def staged(self, target: Handle) -> Handle | None:
        """The staging directory, open; None where there is none. Raises OSError, UnsafePath."""
        return open_own(target, self.staging)

    def make_staging(self) -> Handle:
        """
        The staging directory, open; made if it is not there, with the target if need be.

        Raises OSError, UnsafePath.
        """
        made = make_target(self.directory)
        target = open_root(self.directory)
        staging = self.staged(target)
        if staging is not None:
            return staging
        new = self.unfinished(target)
        if new is None:
            new = self._telling(Before(made, None if made else os.fstat(target.fd).st_mtime_ns))
        with writable(target):
            return self._make(target, new)

    def _make(self, target: Handle, new: bytes) -> Handle:
        before = self._told_by(new)
        remove_tree(target.fd, new)
        staging = make_beneath(target, new)
        for name in _INHERITED:
            _drop_attribute(staging.fd, name)
        os.fchmod(staging.fd, 0o700)  # also takes away a setgid bit of the target's
        with write_to(staging, BEFORE) as file:
            file.write(msgpack.packb(before))
        make_beneath(staging, TREE)
        os.rename(new, self.staging, src_dir_fd=target.fd, dst_dir_fd=target.fd)
        return staging

    def before(self, target: Handle) -> Before:
        """How the target was, as noted when the staging directory was made."""
        staging = self.staged(target)
        if staging is None:
            new = self.unfinished(target)
            return Before([], None) if new is None else self._told_by(new)
        with read_from(staging, BEFORE) as file:
            return Before(*msgpack.unpackb(file.read()))

    def unfinished(self, target: Handle) -> bytes | None:
        """
        The name of a staging directory whose making was cut short, if there is one.

        Making it changes the target's time at once, so the name itself says what that was.
        """
        start = self.staging + b".new-"
        names = map(os.fsencode, os.listdir(target.fd))
        return next((name for name in names if name.startswith(start)), None)

    def undo_staging(self, target: Handle) -> Before:
        """Remove the staging directory, and say how the target was; can be cut short."""
        before = self.before(target)
        new = self._telling(before)
        if self.staged(target) is not None:
            os.rename(self.staging, new, src_dir_fd=target.fd, dst_dir_fd=target.fd)
        remove_tree(target.fd, new)
        return before

    def _telling(self, before: Before) -> bytes:
        mtime = b"" if before.mtime is None else b"%d" % before.mtime
        return b"%b.new-%d-%b" % (self.staging, len(before.made), mtime)

    def _told_by(self, new: bytes) -> Before:
        """How the target was, out of the name that `unfinished` finds."""
        _, count, mtime = new.removeprefix(self.staging).split(b"-", 2)
        made = [self.directory]
        while len(made) < int(count):
            made.append(os.path.dirname(made[-1]))
        return Before(made[: int(count)], int(mtime) if mtime else None)


def open_own(target: Handle, name: bytes) -> Handle | None:
    """A directory of ours in the target, or None; raises UnsafePath for one that is not ours."""
    info = look(target.fd, name)
    if info is None:
        return None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise UnsafePath(f"{shown(name)} in the target was not made by this restore")
    return open_inside(target.fd, name)


def make_target(directory: bytes) -> list[bytes]:
    """Make the directory and what is missing above it; those that were made, the last first."""
    made: list[bytes] = []
    while not os.path.isdir(directory):
        made.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(made):
        os.mkdir(path)
    return made


def write_to(place: Handle, name: bytes, *, keep: bool = False) -> Any:
    """A file of ours, open to write from its start; what it holds already is kept or not."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | (0 if keep else os.O_TRUNC)
    return os.fdopen(os.open(name, flags, 0o600, dir_fd=place.fd), "r+b", buffering=1 << 16)


def read_from(place: Handle, name: bytes) -> Any:
    """A file of ours, open to read; raises OSError."""
    return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=place.fd), "rb")


class LoadedDirectories:
    """The metadata of the directories that were loaded, read beside another walk in order."""

    def __init__(self, staging: Handle) -> None:
        self._file = read_from(staging, DIRECTORIES)
        self._rows: Iterator[list[Any]] = iter(
            msgpack.Unpacker(self._file, strict_map_key=False, max_buffer_size=0)
        )
        self._next = next(self._rows, None)

    def until(self, path: bytes | None) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Path and meta of the next ones, up to that path and with it; all that are left."""
        end = None if path is None else sort_key(path)
        while self._next is not None:
            found, meta = self._next
            if end is not None and sort_key(found) > end:
                return
            yield found, meta
            self._next = next(self._rows, None)

    def close(self) -> None:
        """Let go."""
        self._file.close()


class Ledger:
    """
    What became of every entry given to `load`, in order: the digest of its content, or a mark.

    A row is found by its number and holds a checksum of the path, so that the rows of a try that
    was given other entries are never taken for this one's.
    """

    def __init__(self, staging: Handle, *, write: bool) -> None:
        self._file = write_to(staging, LEDGER, keep=True) if write else read_from(staging, LEDGER)

    def earlier(self, number: int, path: bytes) -> bytes | None:
        """What an earlier try noted for the entry of that number, if it is about this path."""
        packed = os.pread(self._file.fileno(), ROW_BYTES, number * ROW_BYTES)
        return _digest(packed, path)

    def add(self, path: bytes, digest: bytes) -> None:
        """Note the next entry; it need not be on disk before `close`."""
        self._file.write(_ROW.pack(zlib.crc32(path), digest))

    def next(self, path: bytes) -> bytes | None:
        """The next row while reading; None if it is not about this path."""
        return _digest(self._file.read(ROW_BYTES), path)

    def close(self) -> None:
        """Let go; what was noted is written."""
        self._file.close()


def _digest(packed: bytes, path: bytes) -> bytes | None:
    if len(packed) < ROW_BYTES:
        return None
    checksum, digest = _ROW.unpack(packed)
    return digest if checksum == zlib.crc32(path) else None


def _drop_attribute(fd: int, name: str) -> None:
    try:
        os.removexattr(fd, name)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
