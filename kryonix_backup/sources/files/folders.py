"""Open directories of a tree, few at a time however deep it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from kryonix_backup.sources.files.kernel import open_beneath

# Deeper trees have the directories further up closed and opened again on the way back, so that
# the usual limit of 1024 open files is never near.
KEPT_OPEN = 64

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Handle:
    """An open file, closed when nobody holds it any more."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class Folder:
    """A directory below a root; opened when it is needed, and again after `rest`."""

    __slots__ = ("handle", "path", "root")

    def __init__(self, root: Handle, path: bytes, handle: Handle | None = None) -> None:
        self.root = root
        self.path = path
        self.handle = handle

    def open(self) -> Handle:
        """The open directory; whoever holds the handle keeps it open. Raises OSError."""
        if self.handle is None:
            self.handle = Handle(open_beneath(self.root.fd, self.path, _DIRECTORY))
        return self.handle

    def rest(self) -> None:
        """Close it for now."""
        self.handle = None


def open_root(directory: bytes) -> Handle:
    """The root of a tree, open; the operator's own path to it may hold links. Raises OSError."""
    return Handle(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))


def open_inside(place: int, name: bytes, flags: int = 0) -> Handle:
    """A directory within an open one; raises OSError where the name is a link."""
    return Handle(os.open(name, _DIRECTORY | flags, dir_fd=place))


def make_beneath(root: Handle, path: bytes) -> Handle:
    """The directory of that path, open; what is missing on the way is made, for us alone."""
    place = root
    for name in path.split(b"/") if path else ():
        try:
            os.mkdir(name, 0o700, dir_fd=place.fd)
        except FileExistsError:
            pass  # opened next, if it is a directory
        place = open_inside(place.fd, name)
    return place


@contextmanager
def writable(place: Handle) -> Iterator[None]:
    """While it lasts, this user may add to and take from a directory of his own."""
    info = os.fstat(place.fd)
    mode = stat.S_IMODE(info.st_mode)
    user = os.geteuid()
    if mode & 0o300 == 0o300 or user == 0 or user != info.st_uid:
        yield
        return
    os.fchmod(place.fd, mode | 0o300)
    try:
        yield
    finally:
        os.fchmod(place.fd, mode)


def look(place: int, name: bytes) -> os.stat_result | None:
    """What has that name in an open directory, or None; a link is looked at itself."""
    try:
        return os.stat(name, dir_fd=place, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove_tree(place: int, name: bytes) -> None:
    """Remove what has that name, with everything in it, however deep; nothing there is fine."""
    info = look(place, name)
    if info is None:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(name, dir_fd=place)
        return
    root = _open_to_remove(place, name)
    levels = [(Folder(root, b"", root), _names(root))]
    while levels:
        folder, names = levels[-1]
        if names:
            _remove_or_enter(levels, folder, names)
            continue
        levels.pop()
        if levels:
            os.rmdir(folder.path.rpartition(b"/")[2], dir_fd=levels[-1][0].open().fd)
    os.rmdir(name, dir_fd=place)


def _remove_or_enter(
    levels: list[tuple[Folder, list[bytes]]], folder: Folder, names: list[bytes]
) -> None:
    name = names.pop()
    here = folder.open()
    try:
        os.unlink(name, dir_fd=here.fd)
    except (IsADirectoryError, PermissionError):
        inner = _open_to_remove(here.fd, name)
        path = folder.path + b"/" + name if folder.path else name
        levels.append((Folder(folder.root, path, inner), _names(inner)))
        if len(levels) > KEPT_OPEN:
            levels[-KEPT_OPEN][0].rest()


def _open_to_remove(place: int, name: bytes) -> Handle:
    try:
        handle = open_inside(place, name)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=place)
        handle = open_inside(place, name)
    if os.geteuid() != 0:
        os.fchmod(handle.fd, 0o700)
    return handle


def _names(handle: Handle) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(handle.fd)]
