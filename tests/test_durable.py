"""A small file is the new one or the old one, and only its owner reads it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kryonix_backup.durable import sync, write_beside, write_whole


def test_it_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"

    for body in (b"first", b"", b"the third"):
        write_whole(path, body)
        assert path.read_bytes() == body

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["file"]


def test_beside_nothing_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    beside = write_beside(path, b"new")

    assert (path.read_bytes(), beside.read_bytes()) == (b"old", b"new")
    assert beside.parent == path.parent


def test_what_fails_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()

    with pytest.raises(OSError, match="directory"):
        write_whole(path, b"new")

    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "none")
