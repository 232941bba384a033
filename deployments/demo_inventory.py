"""What a tree of files holds, so that two of them can be held against each other."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Item(NamedTuple):
    """Everything about one path that a restore has to bring back; times in nanoseconds."""

    mode: int
    owner: tuple[int, int]
    modified: int
    size: int
    content: str
    twin: str
    """The first path, in order, of the file that this one is a hard link of."""


Inventory = dict[str, Item]


class Comparison(NamedTuple):
    """What was held against each other, and where it differs."""

    entries: int
    bytes: int
    differences: tuple[str, ...]


def take(root: Path) -> Inventory:
    """Look at everything under ``root`` and read every byte; ``.`` is the root itself."""
    items: Inventory = {}
    first_of: dict[tuple[int, int], str] = {}
    for path in _walk(os.fsencode(root)):
        status = os.lstat(path)
        name = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
        is_file = stat.S_ISREG(status.st_mode)
        twin = first_of.setdefault((status.st_dev, status.st_ino), name) if is_file else name
        items[name] = Item(
            status.st_mode,
            (status.st_uid, status.st_gid),
            status.st_mtime_ns,
            status.st_size if is_file else 0,
            _content(path, status.st_mode),
            twin,
        )
    return items


def _walk(root: bytes) -> Iterator[bytes]:
    yield root
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(folders + names):
            yield os.path.join(folder, name)


def _content(path: bytes, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return os.fsdecode(os.readlink(path))
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def compare(expected: Inventory, found: Inventory) -> Comparison:
    """Hold what is found against what was there; every path and every field counts."""
    differences = []
    for name in sorted(expected.keys() | found.keys()):
        before, after = expected.get(name), found.get(name)
        if before is None or after is None:
            differences.append(f"{name!a} is {'missing' if after is None else 'too much'}")
        elif before != after:
            fields = zip(Item._fields, before, after, strict=True)
            changed = ", ".join(field for field, old, new in fields if old != new)
            differences.append(f"{name!a} differs in {changed}")
    size = sum(item.size for item in found.values())
    return Comparison(len(found), size, tuple(differences))
