from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any

import pytest

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
from kryonix_backup.model import MIB
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.storage.store import ObjectStore
from tests.storage.contract import StoreContract, names, raised


class TestFilesystemStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        store = FilesystemStore(tmp_path / "repository")
        store.create()
        return store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    FilesystemStore(tmp_path / "store").create()
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> FilesystemStore:
    return FilesystemStore(root)


def test_only_the_owner_may_look_whatever_the_umask_is(root: Path) -> None:
    before = os.umask(0)
    try:
        store = FilesystemStore(root / "open")
        store.create()
        store.put("packs/aa/one", b"x")
        os.umask(0o777)
        store.put("packs/bb/two", b"x")
    finally:
        os.umask(before)

    modes = {
        path.relative_to(root).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (root / "open").rglob("*")
    }
    assert {modes[f"open/{name}"] for name in ("packs/aa/one", "packs/bb/two")} == {0o600}
    assert {modes[f"open/{name}"] for name in ("tmp", "packs", "packs/aa", "packs/bb")} == {0o700}


def test_what_is_not_an_object_is_not_listed(root: Path, store: FilesystemStore) -> None:
    store.put("packs/real", b"x")
    (root / "tmp/half").write_bytes(b"x")
    (root / "packs/.hidden").write_bytes(b"x")
    (root / "packs/Upper").write_bytes(b"x")
    (root / "lost+found").mkdir(mode=0)
    (root / "packs/link").symlink_to(root / "packs/real")
    (root / "linked").symlink_to(root / "packs", target_is_directory=True)
    os.mkfifo(root / "packs/fifo")

    assert names(store) == ["packs/real"]
    assert names(store, "tmp/") == []


def test_a_fifo_under_an_objects_name_does_not_hang(root: Path, store: FilesystemStore) -> None:
    os.mkfifo(root / "fifo")

    with pytest.raises(ObjectMissing, match="not a file"):
        store.get("fifo")


@pytest.mark.parametrize("name", ["packs/one", "packs/aa/one"])
def test_a_write_never_follows_a_link_out(root: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = root / Path(name).parent
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside, target_is_directory=True)

    with pytest.raises((StoreDenied, ObjectMissing)):
        FilesystemStore(root).put(name, b"x")
    assert list(outside.iterdir()) == []


def test_a_scratch_directory_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "tmp").rmdir()
    (root / "tmp").symlink_to(tmp_path, target_is_directory=True)

    with pytest.raises((StoreDenied, ObjectMissing)):
        FilesystemStore(root).put("a", b"x")


def test_a_missing_directory_is_not_made_by_a_put(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "unmounted")

    assert raised(store, "a") == {
        "put": ObjectMissing,
        "get": ObjectMissing,
        "get_range": ObjectMissing,
        "size": ObjectMissing,
        "list": None,
    }
    with pytest.raises(ObjectMissing, match="the directory does not exist") as caught:
        store.put("a", b"x")
    assert "Mount" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_directories_that_were_removed_are_made_again(root: Path, store: FilesystemStore) -> None:
    store.put("packs/aa/one", b"1")
    (root / "packs/aa/one").unlink()
    (root / "packs/aa").rmdir()
    (root / "tmp").rmdir()

    store.put("packs/aa/two", b"2")

    assert names(store) == ["packs/aa/two"]


def test_a_file_where_a_directory_should_be_is_told(root: Path, store: FilesystemStore) -> None:
    store.put("packs", b"x")

    with pytest.raises(ObjectMissing):
        store.put("packs/one", b"x")
    assert os.listdir(root / "tmp") == []


def test_what_was_abandoned_a_day_ago_is_removed(root: Path) -> None:
    old, young = root / "tmp/old", root / "tmp/young"
    for path, age in ((old, 25 * 3600), (young, 23 * 3600)):
        path.write_bytes(b"half")
        moment = path.stat().st_mtime - age
        os.utime(path, (moment, moment))

    FilesystemStore(root).put("a", b"x")

    assert os.listdir(root / "tmp") == ["young"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EACCES, StoreDenied),
        (errno.EPERM, StoreDenied),
        (errno.EROFS, StoreDenied),
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
        (errno.ETIMEDOUT, StoreUnavailable),
        (errno.EMFILE, StoreUnavailable),
        (errno.EINVAL, StoreError),
    ],
)
def test_what_the_system_says_is_translated_and_leaves_nothing(
    store: FilesystemStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[KryonixError],
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    store.put("packs/before", b"x")
    for call in ("write", "fsync", "fchmod"):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, refuse)
            with pytest.raises(kind) as caught:
                store.put("packs/one", b"body")
        assert type(caught.value) is kind
        assert "packs/one" in str(caught.value)
        assert str(root) in str(caught.value)
        assert os.listdir(root / "tmp") == []
    for call, ask in (("pread", store.get), ("open", store.size)):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, refuse)
            with pytest.raises(kind):
                ask("packs/before")


def test_a_large_object_leaves_the_page_cache_once_it_is_on_disk(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync = os.fsync

    def synced(descriptor: int) -> None:
        calls.append("synced")
        sync(descriptor)

    def advised(descriptor: int, start: int, length: int, advice: int) -> None:
        assert (start, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        calls.append(f"{os.fstat(descriptor).st_size} bytes given back")
        raise OSError(errno.EINVAL, "not every file system takes advice")

    store.put("a", b"made before: its directories are durable")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "posix_fadvise", advised)
    store.put("small", bytes(1000))
    store.put("large", bytes(2 * MIB))

    assert calls == ["synced", "synced", "synced", f"{2 * MIB} bytes given back", "synced"]
    assert store.get("large") == bytes(2 * MIB)


class Disk:
    """Notes what is written past the page cache, and refuses some of it; cached writes go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused_from: int | None = None) -> None:
        self.written: list[tuple[int, bool]] = []
        self._refused_from = refused_from
        self._direct = False
        self._fcntl, self._write = fcntl.fcntl, os.write
        monkeypatch.setattr(fcntl, "fcntl", self.set)
        monkeypatch.setattr(os, "write", self.write)

    def set(self, descriptor: int, command: int, flags: int = 0) -> int:
        if command != fcntl.F_SETFL:
            return self._fcntl(descriptor, command, flags)
        if flags & os.O_DIRECT and self._refused_from == 0:
            raise OSError(errno.EINVAL, "not on this file system")
        self._direct = bool(flags & os.O_DIRECT)
        return 0

    def write(self, descriptor: int, data: memoryview) -> int:
        if self._direct and self._refused_from is not None:
            past = sum(count for count, _ in self.written)
            if past == self._refused_from:
                raise OSError(errno.EINVAL, "not from there")
            data = data[: self._refused_from - past]
        count = self._write(descriptor, data)
        self.written.append((count, self._direct))
        return count


@pytest.mark.parametrize(
    ("refused_from", "written"),
    [
        (None, [(2 * MIB, True), (5, False)]),
        (0, [(2 * MIB + 5, False)]),
        (MIB, [(MIB, True), (MIB + 5, False)]),
    ],
)
def test_a_large_object_goes_past_the_page_cache_where_it_may(
    store: FilesystemStore,
    monkeypatch: pytest.MonkeyPatch,
    refused_from: int | None,
    written: list[tuple[int, bool]],
) -> None:
    body = os.urandom(2 * MIB + 5)
    store.put("before", b"x")
    with monkeypatch.context() as patched:
        disk = Disk(patched, refused_from)
        store.put("large", body)
        large = list(disk.written)
        store.put("small", body[:MIB])

    assert large == written
    assert disk.written[len(large) :] == [(MIB, False)]
    assert store.get("large") == body


@pytest.mark.parametrize("extra", [0, 1, 4095, 4096])
def test_a_large_object_of_any_length_comes_back(store: FilesystemStore, extra: int) -> None:
    with mmap(-1, 3 * MIB) as buffer, memoryview(buffer) as body:
        body[:] = os.urandom(3 * MIB)
        store.put("large", body[: 2 * MIB + extra])

        assert store.get("large") == body[: 2 * MIB + extra]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV])
def test_a_file_system_without_links_is_refused(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)

    asks: tuple[Callable[[], None], ...] = (lambda: store.put("a", b"x"), store.create)
    for ask in asks:
        with pytest.raises(StoreUnsupported, match="no hard links"):
            ask()
    assert os.listdir(root / "tmp") == []
    assert names(store) == []


def test_a_file_system_whose_links_overwrite_is_refused(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", lambda *_, **__: None)

    with pytest.raises(StoreUnsupported, match="over existing names"):
        store.create()
    assert os.listdir(root / "tmp") == []


def test_short_writes_and_reads_are_gone_on_with(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, pread = os.write, os.pread
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 4), at))

    store.put("a", b"0123456789")

    assert store.get("a") == b"0123456789"
    assert store.get_range("a", 1, 8) == b"12345678"
    assert store.get_range("a", 5, 80) == b"56789"


def test_a_file_that_vanishes_while_it_is_listed_is_left_out(
    root: Path, store: FilesystemStore
) -> None:
    for name in ("a", "b", "c"):
        store.put(name, b"x")

    listing = store.list("")
    first = next(listing).name
    for name in {"a", "b", "c"} - {first}:
        (root / name).unlink()

    assert list(listing) == []


def test_a_link_whose_answer_was_lost_counts(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", twice)

    store.put("a", b"body")

    assert store.get("a") == b"body"
    assert os.listdir(root / "tmp") == []


def test_no_descriptor_is_left_open(root: Path, store: FilesystemStore) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store.put("packs/aa/one", b"x")
    for ask in (
        lambda: store.put("packs/aa/one", b"x"),
        lambda: store.get("none"),
        lambda: store.get("packs/aa"),
        lambda: FilesystemStore(root / "none").put("a", b""),
    ):
        with pytest.raises((ObjectExists, ObjectMissing)):
            ask()
    store.create()
    list(store.list(""))

    assert len(os.listdir("/proc/self/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before
