from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kryonix_backup.errors import Damaged
from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.files import comparing
from kryonix_backup.sources.files.target import FilesTarget
from tests.sources.files.engine import Snapshot, as_ordinary_user, back_up, load, target_of, write

Loaded = tuple[Snapshot, FilesTarget, Path]


@pytest.fixture
def loaded(tree: Path, tmp_path: Path) -> Loaded:
    snapshot = back_up(tree)
    target = target_of(tmp_path / "target")
    load(snapshot, target)
    return snapshot, target, next((tmp_path / "target").iterdir()) / "tree"


def _same_time(path: Path, change: Callable[[Path], object]) -> None:
    time = path.lstat().st_mtime_ns
    change(path)
    os.utime(path, ns=(time, time), follow_symlinks=False)


def _replace_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def _replace_by_copy(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o4711)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: list[tuple[str, Callable[[Path], object], str | None]] = [
    ("docs!", lambda path: path.write_bytes(b"Sorts after what is in docs, by name"), "content"),
    ("docs!", lambda path: path.chmod(0o600), "mode"),
    ("docs!", lambda path: os.setxattr(path, "user.kind", b"2"), None),
    ("docs", lambda path: os.setxattr(path, "user.kind", b"2"), "extended attribute user.kind"),
    ("link", _replace_link, "target"),
    ("plain", _replace_by_copy, "being a name of the same file"),
    ("empty", _replace_by_folder, "kind"),
]


@pytest.mark.parametrize(("name", "change", "difference"), CHANGES)
def test_every_difference_is_found(
    loaded: Loaded, name: str, change: Callable[[Path], object], difference: str | None
) -> None:
    snapshot, target, staged = loaded
    _same_time(staged / name, change)

    found = target.compare(snapshot.entries)

    if difference is None:  # an attribute more is no difference
        assert found == []
    else:
        assert difference in " ".join(
            problem.reason for problem in found if problem.path.startswith(name)
        )


def test_a_time_and_a_missing_entry_are_found(loaded: Loaded) -> None:
    snapshot, target, staged = loaded
    os.utime(staged / "pipe", ns=(1, 1))
    (staged / "socket").unlink()

    found = {problem.path: problem.reason for problem in target.compare(snapshot.entries)}

    assert found == {"pipe": "differs in time", "socket": "differs in being there at all"}


def test_entries_that_were_not_loaded_are_found(loaded: Loaded) -> None:
    snapshot, target, _ = loaded
    extra = snapshot.entries[-1]._replace(path=b"zzz")

    found = target.compare([*snapshot.entries, extra])

    assert [(problem.path, problem.reason) for problem in found] == [("zzz", "was not loaded")]


def test_a_directory_that_is_gone_is_found_for_everything_in_it(loaded: Loaded) -> None:
    snapshot, target, staged = loaded
    (staged / "docs").rename(staged / "elsewhere")

    found = {problem.path for problem in target.compare(snapshot.entries)}

    assert {"docs", "docs/deep", "docs/deep/letter", "docs/plain-again"} <= found


@pytest.fixture
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_LARGE_BYTES", 1)
    monkeypatch.setattr(comparing, "_MOST_WAITING", 2)


@pytest.mark.usefixtures("all_are_large")
def test_problems_of_large_files_come_in_the_order_of_entries(loaded: Loaded) -> None:
    snapshot, target, staged = loaded
    wrong = [
        entry
        for entry in snapshot.entries
        if entry.path and entry.kind in (EntryKind.FILE, EntryKind.FIFO)
    ]
    for entry in wrong:
        os.utime(staged / os.fsdecode(entry.path), ns=(1, 1))

    found = target.compare(snapshot.entries)

    named = [each.path for each in found if each.reason == "differs in time"]
    assert [path for path in named if path in {entry.text for entry in wrong}] == [
        entry.text for entry in wrong
    ]
    assert sum(entry.size > 0 for entry in wrong) > 2


@pytest.mark.usefixtures("all_are_large")
def test_a_large_file_that_cannot_be_read_back_is_named(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, target, _ = loaded
    readers: set[str] = set()

    def failing(*_: object) -> int:
        readers.add(threading.current_thread().name)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", failing)

    found = {problem.path: problem.reason for problem in target.compare(snapshot.entries)}

    assert found["docs!"] == "cannot be read back: input/output error"
    assert readers
    assert all(name.startswith("compare") for name in readers)


@pytest.mark.usefixtures("all_are_large")
def test_entries_that_stop_coming_end_the_threads(loaded: Loaded) -> None:
    snapshot, target, _ = loaded

    def cut() -> Iterator[Entry]:
        yield from snapshot.entries
        raise Damaged("the tree")

    with pytest.raises(Damaged, match="the tree"):
        target.compare(cut())

    assert not [each for each in threading.enumerate() if each.name.startswith("compare")]


def test_an_ordinary_user_compares_what_its_mode_shuts(open_path: Path) -> None:
    def work() -> None:
        os.setxattr(write(open_path / "tree" / "file"), "user.kind", b"shut")
        snapshot = back_up(open_path / "tree")
        shut = snapshot[b"file"]._replace(meta={**snapshot[b"file"].meta, "mode": 0})
        snapshot.entries[-1] = shut
        target = target_of(open_path / "target")

        load(snapshot, target)

        staged = next((open_path / "target").iterdir()) / "tree" / "file"
        assert staged.stat().st_mode & 0o777 == 0

    as_ordinary_user(work)
