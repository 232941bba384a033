from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from kryonix_backup.sources.files import kernel
from kryonix_backup.sources.files.folders import Handle, make_beneath, open_root
from kryonix_backup.sources.files.kernel import open_beneath, rename_new, sync_file_system


@pytest.fixture(params=["today's kernel", "an older kernel"])
def top(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Handle:
    if request.param == "an older kernel":
        monkeypatch.setattr(kernel, "_has_openat2", lambda: False)
        monkeypatch.setattr(kernel, "_libc", object())
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("text")
    return open_root(os.fsencode(tmp_path))


def test_a_path_is_opened_below_the_root(top: Handle) -> None:
    fd = open_beneath(top.fd, b"a/b/file", os.O_RDONLY)

    assert os.read(fd, 9) == b"text"
    os.close(fd)
    with pytest.raises(FileNotFoundError):
        open_beneath(top.fd, b"a/c/file", os.O_RDONLY)


def test_a_link_on_the_way_is_not_followed(top: Handle, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a" / "last").symlink_to("b/file")

    for path in (b"link/b/file", b"a/last"):
        with pytest.raises(OSError) as caught:
            open_beneath(top.fd, path, os.O_RDONLY)
        assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_a_path_may_be_longer_than_the_system_takes(deep_path: Path) -> None:
    top = open_root(os.fsencode(deep_path))
    path = b"/".join([b"d" * 250] * 40)
    inner = make_beneath(top, path)
    os.mkdir(b"last", dir_fd=inner.fd)

    fd = open_beneath(top.fd, path + b"/last", os.O_RDONLY | os.O_DIRECTORY)

    assert os.listdir(fd) == []
    os.close(fd)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_renaming_never_replaces(top: Handle, tmp_path: Path, kind: str) -> None:
    for name in ("old", "there"):
        place = tmp_path / name
        if kind == "file":
            place.write_text(name)
        elif kind == "directory":
            place.mkdir()
        else:
            place.symlink_to("nowhere")

    with pytest.raises(FileExistsError):
        rename_new(top.fd, b"old", top.fd, b"there")
    rename_new(top.fd, b"old", top.fd, b"new")

    assert sorted(os.listdir(tmp_path)) == ["a", "new", "there"]


def test_a_file_system_without_the_flag_is_served_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        def renameat2(self, *arguments: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(kernel, "_libc", Plain())
    (tmp_path / "old").write_text("text")
    top = open_root(os.fsencode(tmp_path))

    rename_new(top.fd, b"old", top.fd, b"new")

    assert os.listdir(tmp_path) == ["new"]


def test_a_failure_is_an_os_error(top: Handle) -> None:
    with pytest.raises(FileNotFoundError):
        rename_new(top.fd, b"none", top.fd, b"new")


def test_the_file_system_is_made_durable(top: Handle) -> None:
    sync_file_system(top.fd)


def test_a_sync_that_fails_says_so() -> None:
    with pytest.raises(OSError, match="Bad file"):
        sync_file_system(-1)
