from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

from kryonix_backup.model import Entry, EntryKind, sort_key
from kryonix_backup.sources.files.folders import make_beneath, open_root
from kryonix_backup.sources.files.tree import PART
from kryonix_backup.sources.files.walk import Previous
from kryonix_backup.sources.source import Item
from kryonix_backup.testing.sources import items_of
from tests.sources.files.conftest import LONGEST_NAME
from tests.sources.files.engine import (
    LATER,
    ROOT,
    Moment,
    as_ordinary_user,
    back_up,
    restore,
    source_of,
    target_of,
    write,
)


def test_entries_come_in_order_the_root_first(tree: Path) -> None:
    paths = back_up(tree).paths

    assert paths[0] == b""
    assert paths == sorted(paths, key=sort_key)
    assert paths.index(b"docs/deep/letter") < paths.index(b"docs!")


def test_every_kind_is_described(tree: Path) -> None:
    snapshot = back_up(tree)

    kinds = {entry.path: entry.kind for entry in snapshot.entries}
    assert snapshot.problems == []
    assert kinds[b""] is EntryKind.DIRECTORY
    assert kinds[b"docs/plain-again"] is EntryKind.FILE
    assert kinds[b"plain"] is EntryKind.HARDLINK
    assert snapshot[b"plain"].meta["target"] == b"docs/plain-again"
    assert kinds[b"link"] is EntryKind.SYMLINK
    assert snapshot[b"link"].meta["target"] == b"nowhere/\xff"
    assert snapshot[b"link-again"].meta["target"] == b"link"
    assert kinds[b"pipe"] is EntryKind.FIFO
    assert kinds[b"socket"] is EntryKind.SOCKET
    assert kinds[LONGEST_NAME.encode()] is EntryKind.FILE
    assert kinds[b"\xff\xfe"] is EntryKind.FILE
    meta = snapshot[b"docs/plain-again"].meta
    info = os.stat(tree / "plain")
    assert meta["mode"] == 0o4711
    assert (meta["uid"], meta["gid"], meta["mtime"]) == (info.st_uid, info.st_gid, info.st_mtime_ns)
    assert meta["xattrs"] == {b"user.kind": b"\x00binary\xff"}
    if ROOT:
        assert meta["user"] == meta["group"] == "root"
        assert "user" not in snapshot[b"docs!"].meta
        assert kinds[b"null"] is EntryKind.CHARACTER_DEVICE
        assert snapshot[b"loop"].meta["rdev"] == os.makedev(7, 99)


def test_what_has_not_changed_is_not_read_again(tree: Path) -> None:
    first = back_up(tree)

    second = back_up(tree, first)

    assert second.read == []
    assert second.entries == first.entries


@pytest.mark.parametrize("change", ["content", "same size and time", "mode", "attribute", "rename"])
def test_what_has_changed_is_read_again(tree: Path, change: str) -> None:
    first = back_up(tree)
    path = tree / "docs" / "deep" / "letter"
    path.chmod(0o600)
    info = path.stat()
    if change == "content":
        write(path, b"dear writer, and more")
    elif change == "same size and time":
        write(path, b"DEAR READER")
        os.utime(path, ns=(info.st_mtime_ns, info.st_mtime_ns))
    elif change == "attribute":
        os.setxattr(path, "user.new", b"1")
    elif change == "rename":
        path = path.rename(path.with_name("other"))

    second = back_up(tree, first)

    name = os.fsencode(path.relative_to(tree))
    assert second.read == [name]
    assert second.contents[second[name].refs] == path.read_bytes()


def test_a_file_that_changed_just_before_it_was_read_is_not_trusted(tmp_path: Path) -> None:
    """Another change within the same tick of the file system's clock would have the same stamp."""
    write(tmp_path / "file")
    first = back_up(tmp_path, clock=Moment(0))

    second = back_up(tmp_path, first, clock=LATER)
    third = back_up(tmp_path, second, clock=LATER)

    assert len(first[b"file"].stamp) == 5
    assert (second.read, third.read) == ([b"file"], [])
    assert len(second[b"file"].stamp) == 4


def test_a_stamp_is_trusted_in_either_form_that_msgpack_gives(tmp_path: Path) -> None:
    write(tmp_path / "file")
    first = back_up(tmp_path)
    first.entries = [
        entry._replace(stamp=tuple(entry.stamp)) if entry.stamp else entry
        for entry in first.entries
    ]

    assert back_up(tmp_path, first).read == []


def test_entries_may_come_and_go_between_snapshots(tree: Path) -> None:
    first = back_up(tree)
    shutil.rmtree(tree / "docs")
    write(tree / "docs" / "a")
    write(tree / "ab" / "c")
    write(tree / "zz")

    second = back_up(tree, first)

    assert set(second.read) == {b"ab/c", b"docs/a", b"plain", b"zz"}


def test_previous_entries_are_found_in_passing() -> None:
    paths = [b"", b"a", b"a/b", b"a!", b"c"]
    previous = Previous(Entry(path, EntryKind.FILE, 0) for path in paths)

    found = [previous.find(path) for path in (b"", b"a/a", b"a/b", b"a!", b"b", b"c", b"d")]

    assert [each.path if each else None for each in found] == [
        b"", None, b"a/b", b"a!", None, b"c", None,
    ]  # fmt: skip


def test_a_hundred_thousand_entries_in_one_directory(deep_path: Path) -> None:
    top = open_root(os.fsencode(deep_path))
    for number in range(100_000):
        os.mknod(b"%d" % (number * 7919 % 100_000), dir_fd=top.fd)

    count = 0
    last = b""
    for item in items_of(source_of(deep_path).dump(PART, None)):
        assert sort_key(item.entry.path) >= last
        last = sort_key(item.entry.path)
        count += 1

    assert count == 100_001


def test_a_tree_deeper_than_files_may_be_open(deep_path: Path) -> None:
    depth = 400
    (deep_path / "tree").mkdir()
    top = open_root(os.fsencode(deep_path / "tree"))
    inner = make_beneath(top, b"/".join([b"deep and long"] * depth))
    os.close(os.open(b"file", os.O_CREAT, dir_fd=inner.fd))
    for name in (b"zebra", b"deep and long/zebra"):
        os.mkdir(name, dir_fd=top.fd)

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        snapshot = back_up(deep_path / "tree")
        restore(snapshot, deep_path / "back")
        again = back_up(deep_path / "back")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert len(snapshot.entries) == depth + 4
    assert snapshot.problems == again.problems == []
    assert again.paths == snapshot.paths
    target_of(deep_path / "back").finish()


def test_what_vanishes_is_reported(tree: Path) -> None:
    def vanish(item: Item) -> None:
        if item.entry.path == b"docs":
            shutil.rmtree(tree / "docs" / "deep")
            (tree / "empty").unlink()
        elif item.entry.path == b"docs!":
            (tree / "docs!").unlink()

    snapshot = back_up(tree, before_open=vanish)

    assert {(problem.path, problem.reason) for problem in snapshot.problems} == {
        ("docs/deep", "vanished while the tree was read"),
        ("empty", "vanished while the tree was read"),
        ("docs!", "docs! vanished before it could be read"),
    }
    assert b"docs!" not in snapshot.paths


def test_a_further_name_stands_for_itself_when_the_first_is_lost(tree: Path) -> None:
    def vanish(item: Item) -> None:
        if item.entry.path == b"docs/plain-again":
            (tree / "docs" / "plain-again").unlink()

    snapshot = back_up(tree, before_open=vanish)

    assert snapshot[b"plain"].kind is EntryKind.FILE
    assert snapshot.contents[snapshot[b"plain"].refs] == (tree / "plain").read_bytes()


def test_what_an_ordinary_user_may_not_read_is_reported(open_path: Path) -> None:
    write(open_path / "secret", mode=0o000)
    write(open_path / "shut" / "file").parent.chmod(0o000)
    write(open_path / "open")

    def work() -> None:
        snapshot = back_up(open_path)
        assert snapshot.paths == [b"", b"open", b"shut"]
        assert {(problem.path, problem.reason) for problem in snapshot.problems} == {
            ("secret", "secret cannot be read: permission denied"),
            ("shut", "the directory cannot be listed: permission denied"),
        }

    as_ordinary_user(work)


def test_another_file_system_is_not_entered_when_told_so() -> None:
    """Below /dev there are others, such as that of the terminals."""
    devices = Path("/dev")
    apart = {
        os.fsencode(path.name)
        for path in devices.iterdir()
        if path.is_dir() and path.lstat().st_dev != devices.stat().st_dev
    }

    def within(one_file_system: bool) -> set[bytes]:
        dump = source_of(devices, one_file_system=one_file_system).dump(PART, None)
        return {item.entry.path for item in items_of(dump)}

    assert apart
    assert apart <= within(True)
    assert not [path for path in within(True) if path.partition(b"/")[0] in apart and b"/" in path]
    assert [path for path in within(False) if path.partition(b"/")[0] in apart and b"/" in path]
