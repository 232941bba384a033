from __future__ import annotations

import os
from pathlib import Path

import pytest

from kryonix_backup.sources.files.folders import (
    Folder,
    Handle,
    look,
    make_beneath,
    open_inside,
    open_root,
    remove_tree,
    writable,
)
from tests.sources.files.engine import as_ordinary_user, write


def _top(path: Path) -> Handle:
    return open_root(os.fsencode(path))


def test_a_folder_is_opened_again_after_a_rest(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    folder = Folder(_top(tmp_path), b"a/b")
    first = os.fstat(folder.open().fd).st_ino

    folder.rest()

    assert folder.handle is None
    assert os.fstat(folder.open().fd).st_ino == first


def test_a_handle_lives_as_long_as_someone_holds_it(tmp_path: Path) -> None:
    folder = Folder(_top(tmp_path), b"")
    held = folder.open()
    number = held.fd

    folder.rest()
    os.fstat(number)
    del held

    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_looking_never_follows(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    top = _top(tmp_path)

    found = look(top.fd, b"link")

    assert found is not None
    assert found.st_ino == os.lstat(tmp_path / "link").st_ino
    assert look(top.fd, b"none") is None
    with pytest.raises(OSError):
        open_inside(top.fd, b"link")
    with pytest.raises(OSError):
        make_beneath(top, b"link/new")


def test_a_tree_is_removed_however_deep(deep_path: Path) -> None:
    top = _top(deep_path)
    inner = make_beneath(top, b"/".join([b"d"] * 400))
    os.symlink(b"/", b"root", dir_fd=inner.fd)
    write(deep_path / "d" / "beside")
    write(deep_path / "file")

    for name in (b"d", b"file", b"none"):
        remove_tree(top.fd, name)

    assert os.listdir(deep_path) == []


def test_an_ordinary_user_removes_and_fills_what_is_his_but_shut(open_path: Path) -> None:
    def work() -> None:
        write(open_path / "tree" / "inner" / "file").parent.chmod(0o500)
        write(open_path / "tree" / "dark" / "file").parent.chmod(0)
        (open_path / "tree").chmod(0o500)
        top = _top(open_path)

        tree = open_inside(top.fd, b"tree")
        with writable(tree):
            os.mkdir(b"new", dir_fd=tree.fd)
        assert os.fstat(tree.fd).st_mode & 0o777 == 0o500
        with pytest.raises(PermissionError):
            os.mkdir(b"newer", dir_fd=tree.fd)
        remove_tree(top.fd, b"tree")

        assert os.listdir(open_path) == []

    as_ordinary_user(work)
