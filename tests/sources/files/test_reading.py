from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.errors import SourceUnreadable
from kryonix_backup.model import MIB, EntryKind, Problem
from kryonix_backup.sources.files.reading import FileReader, data_ranges, find_holes
from kryonix_backup.sources.files.tree import PART
from kryonix_backup.sources.source import Item, Reader
from kryonix_backup.testing.sources import items_of
from tests.sources.files.engine import LATER, back_up, content_of, restore, source_of, write


def _open(path: Path) -> tuple[FileReader, list[Problem]]:
    dump = source_of(path.parent, LATER).dump(PART, None)
    for item in items_of(dump):
        if item.entry.path == os.fsencode(path.name):
            assert item.open is not None
            reader = item.open()
            assert isinstance(reader, FileReader)
            return reader, dump.problems
    raise AssertionError(path)


def _rest(reader: Reader, size: int = 100) -> bytes:
    buffer = memoryview(bytearray(size))
    found = b""
    while count := reader.readinto(buffer):
        found += buffer[:count]
    return found


def test_a_file_is_read_whole_in_any_pieces(tmp_path: Path) -> None:
    write(tmp_path / "file", bytes(range(256)) * 9)

    for size in (1, 7, 2304, 5000):
        reader, problems = _open(tmp_path / "file")
        assert _rest(reader, size) == bytes(range(256)) * 9
        entry = reader.close()
        assert "changed" not in entry.meta
        assert problems == []


@pytest.mark.parametrize("change", ["grown", "truncated", "written", "renamed over"])
def test_a_file_that_changes_while_it_is_read_is_marked(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "file", b"x" * 1000)
    reader, problems = _open(path)
    reader.readinto(memoryview(bytearray(100)))
    if change == "grown":
        with path.open("ab") as file:
            file.write(b"y" * 500)
    elif change == "truncated":
        os.truncate(path, 500)
    elif change == "written":
        with path.open("r+b") as file:
            file.write(b"z")
    else:
        write(tmp_path / "new", b"n").rename(path)

    rest = _rest(reader)
    entry = reader.close()

    assert len(rest) == (400 if change == "truncated" else 900)
    assert entry.meta["changed"] is True
    assert [problem.reason for problem in problems] == ["changed while it was read"]
    assert len(entry.stamp) == 5


def test_a_changed_file_is_read_again_and_restored_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "tree" / "file", b"x" * 1000)

    first = back_up(tmp_path / "tree")
    first.entries = [
        entry._replace(meta={**entry.meta, "changed": True}, stamp=[*entry.stamp, 1])
        if entry.path
        else entry
        for entry in first.entries
    ]
    report = restore(first, tmp_path / "back")

    assert [problem.path for problem in report.problems] == ["file"]
    assert "may mix two states" in report.problems[0].reason
    assert back_up(tmp_path / "tree", first).read == [b"file"]
    assert content_of(os.fsencode(path)) == b"x" * 1000


def test_an_error_in_the_middle_leaves_the_file_out(tmp_path: Path) -> None:
    write(tmp_path / "file", b"x" * 1000)
    reader, _ = _open(tmp_path / "file")
    buffer = memoryview(bytearray(100))
    assert reader.readinto(buffer) == 100
    broken = os.open(tmp_path, os.O_RDONLY)
    os.dup2(broken, reader._fd)
    os.close(broken)

    with pytest.raises(SourceUnreadable, match="file cannot be read: is a directory"):
        reader.readinto(buffer)
    assert reader._fd == -1


def test_a_file_replaced_before_it_is_opened_is_not_taken_for_it(tmp_path: Path) -> None:
    write(tmp_path / "tree" / "a")
    write(tmp_path / "outside", b"secret")
    for name in ("fifo", "link", "shut"):
        write(tmp_path / "tree" / name)

    def replace(item: Item) -> None:
        path = tmp_path / "tree" / item.entry.text
        if item.open is None or path.name == "a":
            return
        path.unlink()
        if path.name == "fifo":
            os.mkfifo(path)
        elif path.name == "link":
            path.symlink_to(tmp_path / "outside")
        else:
            path.mkdir()

    snapshot = back_up(tmp_path / "tree", before_open=replace)

    assert snapshot.paths == [b"", b"a"]
    assert [problem.reason for problem in snapshot.problems] == [
        "fifo is not a regular file any more",
        "link was replaced by something else before it could be read",
        "shut is not a regular file any more",
    ]


def test_a_directory_swapped_for_a_link_is_not_read_through(tmp_path: Path) -> None:
    """An opener that is used late opens by its path, from the root, without links."""
    write(tmp_path / "tree" / "sub" / "file")
    write(tmp_path / "outside" / "file", b"secret")
    items = list(items_of(source_of(tmp_path / "tree").dump(PART, None)))
    (tmp_path / "tree" / "sub").rename(tmp_path / "aside")
    (tmp_path / "tree" / "sub").symlink_to(tmp_path / "outside")

    late = items[-1].open
    assert late is not None
    with pytest.raises(SourceUnreadable, match="replaced by something else"):
        late()


def test_reading_leaves_the_access_time_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    os.utime(path, ns=(1, 1))

    back_up(tmp_path)

    assert path.stat().st_atime_ns == 1


def test_five_sparse_gibibytes_are_little_work(tmp_path: Path) -> None:
    size = 5 * 1024 * MIB
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree" / "image").open("wb") as file:
        file.write(b"start")
        file.seek(3 * 1024 * MIB)
        file.write(b"middle" * 100)
        file.truncate(size)

    snapshot = back_up(tmp_path / "tree")
    restore(snapshot, tmp_path / "back")

    entry = snapshot[b"image"]
    assert entry.kind is EntryKind.FILE
    assert entry.content_bytes < MIB
    assert entry.size == size
    back = tmp_path / "back" / "image"
    assert (back.stat().st_size, back.stat().st_mtime_ns) == (size, entry.meta["mtime"])
    assert back.stat().st_blocks * 512 < MIB
    with back.open("rb") as file:
        assert file.read(10) == b"start".ljust(10, b"\0")
        file.seek(3 * 1024 * MIB - 5)
        assert file.read(17) == b"\0" * 5 + b"middlemiddle"
    assert back_up(tmp_path / "tree", snapshot)[b"image"].meta == entry.meta


@given(st.sets(st.integers(0, 40), max_size=12), st.integers(1, 160_000))
def test_holes_and_data_make_up_the_file(blocks: set[int], size: int) -> None:
    fd = os.memfd_create("sparse")
    os.truncate(fd, size)
    for block in blocks:
        if block * 4096 < size:
            os.pwrite(fd, b"x" * min(4096, size - block * 4096), block * 4096)

    holes = find_holes(fd, size)
    ranges = data_ranges(holes, size)

    os.close(fd)
    spans = sorted([(at, at + length) for at, length in holes] + ranges)
    assert spans[0][0] == 0
    assert spans[-1][1] == size
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    data = sum(end - start for start, end in ranges)
    assert data == sum(min(4096, size - b * 4096) for b in blocks if b * 4096 < size)


def test_the_list_of_holes_stays_short(tmp_path: Path) -> None:
    fd = os.memfd_create("sparse")
    os.truncate(fd, 12_000 * 8192)
    for block in range(12_000):
        os.pwrite(fd, b"x", block * 8192)

    holes = find_holes(fd, 12_000 * 8192)

    os.close(fd)
    assert len(holes) <= 4096
    assert data_ranges(holes, 12_000 * 8192)[-1][0] == 0


def test_a_sparse_file_cut_short_keeps_only_the_holes_before_its_end(tmp_path: Path) -> None:
    path = tmp_path / "tree" / "file"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.write(b"a" * 4096)
        file.seek(MIB)
        file.write(b"b" * 8192)
        file.truncate(3 * MIB)
    reader, _ = _open(path)
    reader.readinto(memoryview(bytearray(4096)))
    os.truncate(path, MIB + 4096)

    rest = _rest(reader, 4096)
    entry = reader.close()

    assert rest == b"b" * 4096
    assert entry.meta["holes"] == [[4096, MIB - 4096]]
