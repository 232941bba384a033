"""
Calls of Linux that Python's `os` does not offer.

Where the kernel or the file system lacks one, the same promise is kept with older calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from functools import cache

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_BENEATH_WITHOUT_LINKS = 0x08 | 0x04
_RENAME_NOREPLACE = 1
_LONGEST_PATH = 4000  # PATH_MAX is 4096, and some of it is spent on the way

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(root: int, path: bytes, flags: int) -> int:
    """
    Open a path below an open directory without following any link; the new file descriptor.

    Raises OSError: ELOOP or ENOTDIR where a link is in the way.
    """
    if not path:
        return os.open(b".", flags, dir_fd=root)
    if len(path) > _LONGEST_PATH or not _has_openat2():
        return _open_step_by_step(root, path, flags)
    while True:
        fd = _openat2(root, path, flags)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code != errno.EAGAIN:  # something was renamed on the way meanwhile
            raise OSError(code, os.strerror(code), path)


def rename_new(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    """Rename, and never replace what has the new name; raises FileExistsError."""
    rename = getattr(_libc, "renameat2", None)
    if rename is None:
        _rename_new_by_link(source_dir, source, target_dir, target)
        return
    if rename(source_dir, source, target_dir, target, _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), target)
    _rename_new_by_link(source_dir, source, target_dir, target)


def sync_file_system(fd: int) -> None:
    """Make everything on the file system of an open file durable."""
    syncfs = getattr(_libc, "syncfs", None)
    if syncfs is None:
        os.sync()
    elif syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _openat2(root: int, path: bytes, flags: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_BENEATH_WITHOUT_LINKS)
    return int(
        _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
    )


@cache
def _has_openat2() -> bool:
    root = os.open(b"/", os.O_PATH)
    try:
        fd = _openat2(root, b".", os.O_PATH)
        if fd < 0:
            return False  # an older kernel, or a sandbox that does not know the call
        os.close(fd)
        return True
    finally:
        os.close(root)


def _open_step_by_step(root: int, path: bytes, flags: int) -> int:
    *above, name = path.split(b"/")
    place = root
    try:
        for step in above:
            below = os.open(step, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            if place != root:
                os.close(place)
            place = below
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=place)
    finally:
        if place != root:
            os.close(place)


def _rename_new_by_link(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    info = os.stat(source, dir_fd=source_dir, follow_symlinks=False)
    if stat.S_ISDIR(info.st_mode):
        # A directory may replace an empty one only, and this one is ours.
        os.mkdir(target, 0o700, dir_fd=target_dir)
        os.rename(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir)
        return
    os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)
    os.unlink(source, dir_fd=source_dir)
