"""
Objects as files of a directory, for disks, mounts and network shares.

An object is written to a file in ``tmp/``, made durable, and then *linked* to its name: a link is
refused where the name exists, so of two writers one wins and nothing is ever overwritten. What a
killed writer leaves is in ``tmp/``, where nobody sees it, and is removed a day later.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kryonix_backup.errors import (
    KryonixError,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnsupported,
)
from kryonix_backup.model import MIB, Blob
from kryonix_backup.storage.object_name import (
    SCRATCH,
    check_object_name,
    check_prefix,
    is_object_name,
)
from kryonix_backup.storage.store import ObjectInfo

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_ABANDONED_SECONDS = 24 * 3600.0
# What is larger goes past the page cache where the file system lets it, and else gives back what it
# took there once it is on disk: nothing is copied, and a backup does not push out what the platform
# works with.
_REMEMBERED_BYTES = MIB
_BLOCK_BYTES = 4096  # what goes past the cache goes in whole blocks of any disk
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Nothing hangs where somebody put a FIFO under an object's name.
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC

_ERRORS: dict[int, type[KryonixError]] = {
    errno.ENOSPC: StoreFull,
    errno.EDQUOT: StoreFull,
    errno.EFBIG: StoreFull,
    errno.EACCES: StoreDenied,
    errno.EPERM: StoreDenied,
    errno.EROFS: StoreDenied,
    # A name below the root that is a symbolic link could lead anywhere.
    errno.ELOOP: StoreDenied,
    errno.EIO: StoreUnavailable,
    errno.ESTALE: StoreUnavailable,
    errno.ETIMEDOUT: StoreUnavailable,
    errno.EBUSY: StoreUnavailable,
    errno.EMFILE: StoreUnavailable,
    errno.ENFILE: StoreUnavailable,
    errno.ENOTCONN: StoreUnavailable,
    errno.EHOSTDOWN: StoreUnavailable,
    errno.ENOENT: ObjectMissing,
    errno.ENOTDIR: ObjectMissing,
}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class FilesystemStore:
    """An `ObjectStore` in a directory, readable by its owner alone."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._scratch_is_ready = False
        self._durable: set[str] = set()
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """The directory as a URL."""
        return f"file://{self._root}"

    @property
    def parallel(self) -> int:
        """One: several writers make a disk seek."""
        return 1

    def create(self) -> None:
        """Make the directory where it is missing; raises StoreUnsupported without hard links."""
        with self._translated("the directory"):
            os.makedirs(self._root, mode=_DIRECTORY_MODE, exist_ok=True)
            root = os.open(self._root, _DIRECTORY_FLAGS)
            try:
                self._probe(self._scratch(root))
            finally:
                os.close(root)

    def put(self, name: str, body: Blob) -> None:
        """Write a new object; raises ObjectExists, and ObjectMissing without the directory."""
        with self._written(name, body) as (scratch, temporary, target, leaf):
            try:
                self._link(scratch, temporary, target, leaf, name)
            finally:
                os.unlink(temporary, dir_fd=scratch)

    def replace(self, name: str, body: Blob) -> None:
        """Write an object whether it is there or not; raises ObjectMissing as `put` does."""
        with self._written(name, body) as (scratch, temporary, target, leaf):
            try:
                os.rename(temporary, leaf, src_dir_fd=scratch, dst_dir_fd=target)
            except OSError:
                os.unlink(temporary, dir_fd=scratch)
                raise

    def delete(self, name: str) -> None:
        """Remove an object for good; one that is not there is no failure."""
        *parents, leaf = check_object_name(name).split("/")
        with suppress(ObjectMissing), self._translated(f"object {name}"):
            opened = [self._open_root()]
            try:
                for part in parents:
                    flags = _DIRECTORY_FLAGS | os.O_NOFOLLOW
                    opened.append(os.open(part, flags, dir_fd=opened[-1]))
                os.unlink(leaf, dir_fd=opened[-1])
                os.fsync(opened[-1])
            finally:
                for descriptor in opened:
                    os.close(descriptor)

    @contextmanager
    def _written(self, name: str, body: Blob) -> Iterator[tuple[int, str, int, str]]:
        """The body in a file of ``tmp/``, and the directory and the name that it is for."""
        *parents, leaf = check_object_name(name).split("/")
        with self._translated(f"object {name}"):
            root = self._open_root()
            opened = [root]
            try:
                opened.append(scratch := self._scratch(root))
                opened.append(target := self._directory(root, parents))
                yield scratch, _write(scratch, body), target, leaf
                os.fsync(target)
            finally:
                for descriptor in opened:
                    os.close(descriptor)

    def get(self, name: str) -> bytes:
        """A whole object; raises ObjectMissing."""
        with self._translated(f"object {name}"), self._opened(name) as (descriptor, size):
            return _read(descriptor, 0, size)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Bytes of an object from ``start`` on; raises ObjectMissing."""
        with self._translated(f"object {name}"), self._opened(name) as (descriptor, _):
            return _read(descriptor, start, length)

    def size(self, name: str) -> int:
        """An object's size in bytes; raises ObjectMissing."""
        with self._translated(f"object {name}"), self._opened(name) as (_, size):
            return size

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose name starts with ``prefix``; what only looks like one is left out."""
        folder = check_prefix(prefix).rpartition("/")[0]
        with self._translated(f"the listing of {prefix or 'everything'}"):
            for name, entry in self._walk(folder):
                if name.startswith(prefix) and is_object_name(name):
                    with suppress(FileNotFoundError):
                        yield ObjectInfo(name, entry.stat(follow_symlinks=False).st_size)

    def _walk(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        try:
            scan = os.scandir(os.path.join(self._root, folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        with scan:
            for entry in scan:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if name == SCRATCH or not is_object_name(name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(name)
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, int]]:
        """A descriptor of an object, and its size."""
        descriptor = os.open(os.path.join(self._root, check_object_name(name)), _READ_FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ObjectMissing(f"{self.address}: {name} is not a file")
            yield descriptor, status.st_size
        finally:
            os.close(descriptor)

    def _open_root(self) -> int:
        """The directory itself; never made here, because a disk may just not be mounted."""
        try:
            return os.open(self._root, _DIRECTORY_FLAGS)
        except FileNotFoundError as error:
            raise ObjectMissing(
                f"{self.address}: the directory does not exist",
                "Mount or make the directory, or check the region's address.",
            ) from error

    def _scratch(self, root: int) -> int:
        """A descriptor of ``tmp/``, cleared at first of what was abandoned long ago."""
        scratch = self._directory(root, [SCRATCH])
        with self._lock:
            first, self._scratch_is_ready = not self._scratch_is_ready, True
        if first:
            _clear(scratch)
        return scratch

    def _directory(self, root: int, parents: Sequence[str]) -> int:
        """
        A descriptor of a directory below the root, made where it is missing, durably.

        No symbolic link is followed: a write never leaves the root.
        """
        current, path = os.dup(root), ""
        for part in parents:
            path += f"/{part}"
            try:
                child = self._open_child(current, part, path)
                if path not in self._durable:
                    # Also where another writer has just made it: only now is it certain.
                    os.fsync(current)
                    self._durable.add(path)
            finally:
                os.close(current)
            current = child
        return current

    def _open_child(self, parent: int, part: str, path: str) -> int:
        flags = _DIRECTORY_FLAGS | os.O_NOFOLLOW
        try:
            return os.open(part, flags, dir_fd=parent)
        except FileNotFoundError:
            self._durable.discard(path)
        with suppress(FileExistsError):
            os.mkdir(part, _DIRECTORY_MODE, dir_fd=parent)
        child = os.open(part, flags, dir_fd=parent)
        os.fchmod(child, _DIRECTORY_MODE)  # whatever the umask is
        _give_on(parent, child)
        return child

    def _link(self, scratch: int, temporary: str, target: int, leaf: str, name: str) -> None:
        try:
            os.link(temporary, leaf, src_dir_fd=scratch, dst_dir_fd=target, follow_symlinks=False)
        except FileExistsError as error:
            # Over NFS a link whose answer was lost is asked for again, and then exists: as ours.
            if os.stat(temporary, dir_fd=scratch).st_nlink == 2:
                return
            raise ObjectExists(f"{self.address}: object {name} exists already") from error
        except OSError as error:
            if error.errno in _NO_HARD_LINKS:
                raise StoreUnsupported(
                    f"{self.address}: this file system makes no hard links ({error.strerror})"
                ) from error
            raise

    def _probe(self, scratch: int) -> None:
        """Prove that a link is refused where the name exists."""
        try:
            temporary = _write(scratch, b"")
            try:
                self._link(scratch, temporary, scratch, temporary, temporary)
            except ObjectExists:
                return
            finally:
                os.unlink(temporary, dir_fd=scratch)
        finally:
            os.close(scratch)
        raise StoreUnsupported(f"{self.address}: this file system links over existing names")

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn the operating system's errors into ours."""
        try:
            yield
        except OSError as error:
            kind = _ERRORS.get(error.errno or 0, StoreError)
            if kind is ObjectMissing:
                raise ObjectMissing(f"{self.address}: {what} is missing") from error
            raise kind(f"{self.address}: {what}: {error.strerror}") from error


def _write(scratch: int, body: Blob) -> str:
    """The name of a new durable file in ``scratch``; nothing is left where that fails."""
    name = secrets.token_hex(16)
    descriptor = os.open(name, _WRITE_FLAGS, _FILE_MODE, dir_fd=scratch)
    try:
        os.fchmod(descriptor, _FILE_MODE)  # whatever the umask is
        _give_on(scratch, descriptor)
        with memoryview(body).cast("B") as whole:
            large = len(whole) > _REMEMBERED_BYTES
            written = _write_blocks(descriptor, whole) if large else 0
            while written < len(whole):
                written += os.write(descriptor, whole[written:])
        os.fsync(descriptor)
        if large:
            with suppress(OSError):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except BaseException:
        os.unlink(name, dir_fd=scratch)
        raise
    finally:
        os.close(descriptor)
    return name


def _write_blocks(descriptor: int, body: memoryview) -> int:
    """Write as many whole blocks past the page cache as is possible; how many bytes that was."""
    end = len(body) - len(body) % _BLOCK_BYTES
    written = 0
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        while written < end:
            written += os.write(descriptor, body[written:end])
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system or disk wants it otherwise
            raise
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return written


def _give_on(parent: int, child: int) -> None:
    """As root, let what was made belong to whom its directory belongs: a tenant's own account."""
    owner = os.fstat(parent)
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(child, owner.st_uid, owner.st_gid)


def _read(descriptor: int, start: int, length: int) -> bytes:
    """That many bytes, or as many as there are; a call may return fewer than asked for."""
    first = os.pread(descriptor, length, start)
    if len(first) == length:
        return first
    pieces = [first]
    while pieces[-1]:
        start += len(pieces[-1])
        length -= len(pieces[-1])
        pieces.append(os.pread(descriptor, length, start))
    return b"".join(pieces)


def _clear(scratch: int) -> None:
    """Remove what was left by writers that were killed, judged by the file system's own clock."""
    marker = _write(scratch, b"")
    now = os.stat(marker, dir_fd=scratch).st_mtime
    for name in os.listdir(scratch):
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=scratch, follow_symlinks=False)
            if name == marker or now - status.st_mtime > _ABANDONED_SECONDS:
                os.unlink(name, dir_fd=scratch)
