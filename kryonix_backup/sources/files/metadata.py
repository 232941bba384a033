"""
What is known of an entry beside its content: mode, owner, times, extended attributes.

`describe` and `read_xattrs` read it, `MetadataWriter` brings it back in the order in which each
lasts: owner, attributes, mode, times (a new owner clears setuid, a write changes the times).
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kryonix_backup.model import Problem
from kryonix_backup.sources.files.paths import reason_of, shown

MODE_BITS = 0o7777
_PRIVILEGE_BITS = 0o6000  # setuid and setgid mean something only with the right owner
_ACL = b"system.posix_acl_"
_UNKNOWN = -1


class Owners:
    """The users and groups of this machine, looked up once each."""

    def __init__(self) -> None:
        self._described: dict[tuple[int, int], dict[str, Any]] = {}
        self._here: dict[tuple[Any, ...], tuple[int, int]] = {}

    def describe(self, uid: int, gid: int) -> dict[str, Any]:
        """Both numbers, and the names that this machine has for them."""
        known = self._described.get((uid, gid))
        if known is None:
            known = {"uid": uid, "gid": gid}
            names = (
                ("user", _name(lambda: pwd.getpwuid(uid).pw_name)),
                ("group", _name(lambda: grp.getgrgid(gid).gr_name)),
            )
            known.update({key: name for key, name in names if name})
            self._described[uid, gid] = known
        return known

    def here(self, meta: Mapping[str, Any]) -> tuple[int, int]:
        """The numbers on this machine: by name where it has the name, else as they were."""
        key = (meta["uid"], meta["gid"], meta.get("user"), meta.get("group"))
        known = self._here.get(key)
        if known is None:
            uid, gid, user, group = key
            known = (
                _number(lambda: pwd.getpwnam(user).pw_uid, uid) if user else uid,
                _number(lambda: grp.getgrnam(group).gr_gid, gid) if group else gid,
            )
            self._here[key] = known
        return known


def _name(look_up: Callable[[], str]) -> str | None:
    try:
        name = look_up()
    except KeyError:
        return None
    return name if name.isprintable() else None  # msgpack has no place for other bytes


def _number(look_up: Callable[[], int], fallback: int) -> int:
    try:
        return look_up()
    except KeyError:
        return fallback


class Tally:
    """Problems that many entries share, told once each with how many there are."""

    def __init__(self) -> None:
        self._found: dict[str, list[Any]] = {}

    def add(self, reason: str, path: bytes) -> None:
        """Count one entry."""
        self._found.setdefault(reason, [path, 0])[1] += 1

    def problems(self) -> list[Problem]:
        """One problem for each reason, at the first entry that had it."""
        return [
            Problem(shown(path), f"{reason} ({count} entries)" if count > 1 else reason)
            for reason, (path, count) in self._found.items()
        ]


def describe(info: os.stat_result, owners: Owners) -> dict[str, Any]:
    """The part of an entry's meta that `stat` knows."""
    return {
        "mode": info.st_mode & MODE_BITS,
        "mtime": info.st_mtime_ns,
        **owners.describe(info.st_uid, info.st_gid),
    }


def beside(directory: int, name: bytes) -> bytes:
    """A path to a name in an open directory, for calls that take no directory."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def read_xattrs(place: int | bytes) -> dict[bytes, bytes]:
    """The extended attributes of an open file, or of a path (a link's own). Raises OSError."""
    follow = isinstance(place, int)
    try:
        names = os.listxattr(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    found = {}
    for name in names:
        try:
            found[os.fsencode(name)] = os.getxattr(place, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno != errno.ENODATA:  # removed meanwhile
                raise
    return found


class MetadataWriter:
    """
    Gives restored entries their metadata.

    ``natural`` is the owner that new files have by themselves. What this user may not set, or the
    file system does not have, is counted in ``tally``.
    """

    def __init__(self, natural: tuple[int, int], tally: Tally) -> None:
        self.owners = Owners()
        self.tally = tally
        self._natural = natural

    def of_new(
        self, place: int | bytes, path: bytes, meta: Mapping[str, Any], mode: int | None
    ) -> None:
        """Complete a new entry that has ``mode`` so far; None for a link, which has none."""
        follow = isinstance(place, int)
        owner = self.owners.here(meta)
        wanted = meta["mode"]
        if owner != self._natural:
            if not self._own(place, owner, path):
                wanted &= ~_PRIVILEGE_BITS
            # The change of owner may have cleared bits.
            mode = _UNKNOWN if mode is not None else None
        xattrs = meta.get("xattrs")
        if xattrs:
            self._attach(place, path, xattrs)
            # An access list changes the mode.
            mode = _UNKNOWN if mode is not None else None
        if mode is not None and mode != wanted:
            os.chmod(place, wanted)
        os.utime(place, ns=(meta["mtime"], meta["mtime"]), follow_symlinks=follow)

    def of_existing(self, fd: int, path: bytes, meta: Mapping[str, Any]) -> None:
        """Give an existing directory exactly this metadata, attributes it has more go."""
        info = os.fstat(fd)
        owner = self.owners.here(meta)
        wanted = meta["mode"]
        if owner != (info.st_uid, info.st_gid) and not self._own(fd, owner, path):
            wanted &= ~_PRIVILEGE_BITS
        xattrs = meta.get("xattrs", {})
        there = read_xattrs(fd)
        for name in there.keys() - xattrs.keys():
            self._attempt(name, path, partial(os.removexattr, fd, name))
        new = {name: value for name, value in xattrs.items() if there.get(name) != value}
        self._attach(fd, path, new)
        try:
            os.chmod(fd, wanted)
            os.utime(fd, ns=(meta["mtime"], meta["mtime"]))
        except PermissionError:
            self.tally.add("its mode and time could not be restored; it is another user's", path)

    def _own(self, place: int | bytes, owner: tuple[int, int], path: bytes) -> bool:
        follow = isinstance(place, int)
        try:
            os.chown(place, *owner, follow_symlinks=follow)
        except PermissionError:
            self.tally.add("its owner could not be restored; only root may", path)
            try:
                os.chown(place, -1, owner[1], follow_symlinks=follow)  # a group of one's own
            except PermissionError:
                pass
            return False
        return True

    def _attach(self, place: int | bytes, path: bytes, xattrs: Mapping[bytes, bytes]) -> None:
        follow = isinstance(place, int)
        for name, value in xattrs.items():
            change = partial(os.setxattr, place, name, value, follow_symlinks=follow)
            self._attempt(name, path, change)

    def _attempt(self, name: bytes, path: bytes, change: Callable[[], None]) -> None:
        try:
            change()
        except OSError as error:
            self.tally.add(
                f"its extended attribute {shown(name)} could not be restored: {reason_of(error)}",
                path,
            )


def open_mode(mode: int) -> int:
    """
    The mode a directory has while we work below it.

    Root may enter any; another user lends the owner's bits to himself until the end of `commit`.
    """
    return mode if os.geteuid() == 0 else mode | 0o700


def differences(
    info: os.stat_result, meta: Mapping[str, Any], owners: Owners, *, link: bool
) -> list[str]:
    """Which of mode, owner and time are not as saved; an owner that only root sets is let be."""
    found = []
    owned = (info.st_uid, info.st_gid) == owners.here(meta)
    if not owned and os.geteuid() == 0:
        found.append("owner")
    wanted = meta["mode"] if owned else meta["mode"] & ~_PRIVILEGE_BITS
    if not link and info.st_mode & MODE_BITS != wanted:
        found.append("mode")
    if info.st_mtime_ns != meta["mtime"]:
        found.append("time")
    return found


def differing_xattrs(place: int | bytes, wanted: Mapping[bytes, bytes]) -> list[str]:
    """Attributes that are not as saved, of those that this user may set here."""
    if not wanted:
        return []
    try:
        names = os.listxattr(place, follow_symlinks=isinstance(place, int))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    there = read_xattrs(place) if names else {}
    settable = (b"user.", _ACL) if os.geteuid() != 0 else (b"",)
    return [
        f"extended attribute {shown(name)}"
        for name, value in wanted.items()
        if name.startswith(settable) and there.get(name) != value
    ]
