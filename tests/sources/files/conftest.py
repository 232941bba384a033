"""A tree with every kind of entry, and a directory that any user may use."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.sources.files.folders import open_root, remove_tree
from tests.sources.files.engine import ROOT, write

LONGEST_NAME = "n" * 255


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Every kind of entry and every key of meta that this user can make."""
    top = tmp_path / "tree"
    top.mkdir(mode=0o750)
    write(top / "empty", b"")
    write(top / "plain", b"plain" * 3000, 0o4711)
    write(top / "docs" / "deep" / "letter", b"dear reader", 0o400)
    write(top / "docs!", b"sorts after what is in docs, by name")
    write(top / LONGEST_NAME, b"long")
    write(top / "line\nbreak \N{SNOWMAN}", b"odd")
    write(Path(os.fsdecode(os.fsencode(top) + b"/\xff\xfe")), b"not UTF-8")
    (top / "locked").mkdir()
    write(top / "locked" / "inside")
    os.link(top / "plain", top / "docs" / "plain-again")
    os.symlink(b"nowhere/\xff", os.fsencode(top / "link"))
    os.link(top / "link", top / "link-again", follow_symlinks=False)
    os.mkfifo(top / "pipe", 0o620)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(top)  # a socket's address is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    os.setxattr(top / "plain", "user.kind", b"\x00binary\xff")
    os.setxattr(top / "docs", "user.kind", b"directory")
    if ROOT:
        os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(top / "loop", stat.S_IFBLK | 0o600, os.makedev(7, 99))
        os.chown(top / "docs!", 12345, 54321)
        os.lchown(top / "link", 12345, 54321)
        os.setxattr(top / "link", "trusted.kind", b"of the link", follow_symlinks=False)
    (top / "locked").chmod(0o500)
    _age(top)
    return top


def _age(top: Path) -> None:
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        time = 1_000_000_000_123_456_789 + number
        os.utime(path, ns=(time, time), follow_symlinks=False)
    os.utime(top, ns=(-5, -5))


@pytest.fixture
def deep_path(tmp_path: Path) -> Iterator[Path]:
    """A directory for trees that are too deep for pytest to remove."""
    place = tmp_path / "deep"
    place.mkdir()
    yield place
    top = open_root(os.fsencode(tmp_path))
    remove_tree(top.fd, b"deep")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory in which every user may work."""
    name = tempfile.mkdtemp()
    os.chmod(name, 0o777)
    yield Path(name)
    parent, _, last = os.fsencode(name).rpartition(b"/")
    place = open_root(parent)
    remove_tree(place.fd, last)
