"""Content that is handed to threads arrives whole, and a thread that fails lets nobody wait."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from blake3 import blake3

from kryonix_backup.errors import Damaged, TargetFull
from kryonix_backup.model import MIB, Entry, EntryKind
from kryonix_backup.sources.files.filling import Filled, Fillers, _GivenUp, fill
from kryonix_backup.testing.sources import GivenContent
from tests.sources.files.engine import target_of

META = {"mode": 0o640, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 5_000_000_001}
PIECES = [bytes((number,)) * (MIB // 8) for number in range(40)]
CONTENT = b"".join(PIECES)
LARGE = Entry(b"d/large", EntryKind.FILE, len(CONTENT), meta=META)
FOLDER = Entry(b"d", EntryKind.DIRECTORY, 0, meta={**META, "mode": 0o755})
SMALL = Entry(b"small", EntryKind.FILE, 1, meta=META)


@pytest.fixture
def fillers() -> Iterator[Fillers]:
    threads = Fillers()
    yield threads
    threads.close()


def test_several_files_are_filled_at_once(tmp_path: Path, fillers: Fillers) -> None:
    files = [os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT) for number in range(5)]

    coming = [fillers.fill(fd, iter(PIECES), ()) for fd in files]

    for fd, filled in zip(files, coming, strict=True):
        assert filled.result() == (blake3(CONTENT).digest(), len(CONTENT))
        assert os.pread(fd, len(CONTENT) + 1, 0) == CONTENT
        os.close(fd)


def test_holes_are_passed_over(tmp_path: Path, fillers: Fillers) -> None:
    holes = [[0, 4096], [4096 + len(CONTENT), 4096]]
    ways: dict[str, Callable[[int], Filled]] = {
        "here": lambda fd: fill(fd, PIECES, holes),
        "there": lambda fd: fillers.fill(fd, PIECES, holes).result(),
    }
    for name, result in ways.items():
        fd = os.open(tmp_path / name, os.O_RDWR | os.O_CREAT)
        assert result(fd).bytes == len(CONTENT)
        os.close(fd)
        assert (tmp_path / name).read_bytes() == bytes(4096) + CONTENT + bytes(4096)


def test_a_file_that_cannot_be_written_lets_nobody_wait(fillers: Fillers) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    coming = [fillers.fill(fd, iter(PIECES), ()) for _ in range(3)]

    for filled in coming:
        with pytest.raises(OSError, match="No space left"):
            filled.result()
    os.close(fd)


def _broken() -> Iterator[bytes]:
    yield from PIECES[:3]
    raise Damaged("pack 7 is short")


def test_content_that_breaks_off_is_the_givers_failure(tmp_path: Path, fillers: Fillers) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    with pytest.raises(Damaged):
        fillers.fill(fd, _broken(), ())

    fillers.close()
    os.close(fd)


def test_an_interrupt_while_a_file_is_handed_over_lets_no_thread_wait(
    tmp_path: Path, fillers: Fillers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the thread has its work, and before anybody knows that it has."""
    real = ThreadPoolExecutor.submit

    def submit(*args: Any) -> Future[Any]:
        real(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    (tmp_path / "file").write_bytes(b"another's")
    fd = os.open(tmp_path / "file", os.O_RDWR)
    with pytest.raises(KeyboardInterrupt):
        fillers.fill(fd, PIECES, [[0, 4096]])

    fillers.close()
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"another's", "its number may be another file's"


def test_threads_end_when_nobody_says_that_a_file_has(tmp_path: Path) -> None:
    fillers = Fillers()
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)

    def endless() -> Iterator[bytes]:
        yield PIECES[0]
        fillers.close()  # as where an interrupt has left the one who hands over

    with pytest.raises(_GivenUp):
        fillers.fill(fd, endless(), ()).result()
    os.close(fd)


def test_large_files_before_a_failure_need_not_be_written_again(tmp_path: Path) -> None:
    others = [LARGE._replace(path=b"d/%d" % number) for number in range(3)]
    broken = LARGE._replace(path=b"d/broken")
    target = target_of(tmp_path / "t")
    items = [(FOLDER, iter(())), *((each, iter(PIECES)) for each in others), (broken, _broken())]
    with pytest.raises(Damaged):
        target.load(GivenContent(iter(items)))

    read: list[bytes] = []

    def noted(entry: Entry) -> Iterator[bytes]:
        read.append(entry.path)
        yield from PIECES

    again = [(FOLDER, iter(())), *((each, noted(each)) for each in (*others, broken))]
    report = target.load(GivenContent(iter(again)))

    assert read == [broken.path]
    assert report.entries == 5
    assert target.compare([FOLDER, *others, broken]) == []


def _fails(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Every write of more than a small file's content fails."""
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if len(data) > 1:
            raise OSError(code, os.strerror(code))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)


def test_a_large_file_that_is_left_out_is_told_and_so_are_links_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fails(monkeypatch, errno.EFBIG)
    link = Entry(b"link", EntryKind.HARDLINK, 0, meta={**META, "target": LARGE.path})
    entries = [FOLDER, LARGE, link, SMALL]
    pieces = {LARGE.path: PIECES, SMALL.path: [b"x"]}
    target = target_of(tmp_path / "t")

    report = target.load(GivenContent((each, iter(pieces.get(each.path, ()))) for each in entries))

    assert [problem.path for problem in report.problems] == ["d/large", "link"]
    assert "file too large" in report.problems[0].reason
    assert (report.entries, report.bytes) == (2, 1)
    assert target.compare(entries) == []  # the time of its directory among them
    target.commit()
    target.finish()
    assert sorted(path.name for path in (tmp_path / "t").rglob("*")) == ["d", "small"]


def test_a_target_that_fills_up_while_a_large_file_is_written_ends_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fails(monkeypatch, errno.ENOSPC)
    files = [LARGE._replace(path=b"%d" % number) for number in range(5)]
    target = target_of(tmp_path / "t")

    with pytest.raises(TargetFull, match="cannot be written: no space left"):
        target.load(GivenContent((each, iter(PIECES)) for each in files))

    open_files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert [path for path in open_files if f"{tmp_path}/t/" in path and "/tree/" in path] == []


def test_nobody_writes_any_more_when_pieces_that_fail_are_told(fillers: Fillers) -> None:
    """The file is closed then, and its number is another one's."""
    reading, writing = os.pipe()
    told: list[BaseException] = []

    def pieces() -> Iterator[bytes]:
        yield bytes(MIB)  # more than a pipe takes
        raise Damaged("gone")

    def hand_over() -> None:
        try:
            fillers.fill(writing, pieces(), ())
        except Damaged as error:
            told.append(error)

    handing = Thread(target=hand_over)
    handing.start()
    handing.join(0.3)
    assert not told, "a thread still writes"
    taken = 0
    while taken < MIB:
        taken += len(os.read(reading, MIB))
    handing.join(30)

    assert [str(error) for error in told] == ["gone"]
    os.close(reading)
    os.close(writing)
