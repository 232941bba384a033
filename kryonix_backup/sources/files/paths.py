"""Paths of entries: which of them are safe, and how they are shown."""

from __future__ import annotations

import errno

from kryonix_backup.errors import RestoreError, TargetFull, UnsafePath


def shown(path: bytes) -> str:
    """The path for people; the root of a tree is a dot."""
    return path.decode("utf-8", "backslashreplace") or "."


def check_path(path: bytes) -> None:
    """Refuse a path that could lead out of the tree: raises UnsafePath."""
    framed = b"/" + path + b"/"
    if b"/../" in framed or b"/./" in framed or b"//" in framed or b"\0" in path:
        raise UnsafePath(f"the path {shown(path)!r} could lead out of the target")


def split(path: bytes) -> tuple[bytes, bytes]:
    """The directory an entry is in (empty for the root), and its name there."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def reason_of(error: OSError) -> str:
    """What went wrong, in the system's words."""
    return (error.strerror or str(error)).lower()


def restore_error(error: OSError, what: str) -> RestoreError:
    """The failure of a restore's own step, with what it was about."""
    message = f"{what}: {reason_of(error)}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TargetFull(message)
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return UnsafePath(f"{what}: a link or a file stands where a directory should be")
    return RestoreError(message)
