"""
As little of an engine as connects a dump with a load, and what tests look at trees with.

Contents are kept in a dictionary by their digest; an entry's refs are that digest.
"""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kryonix_backup.errors import SourceUnreadable
from kryonix_backup.model import Entry, Problem, RestoreId, SourceName
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.files.target import FilesTarget
from kryonix_backup.sources.files.tree import PART, FilesSource
from kryonix_backup.sources.source import Item, LoadReport
from kryonix_backup.testing.sources import GivenContent, items_of

RESTORE = RestoreId("20261123t214005z-0123456789abcdef")
ROOT = os.geteuid() == 0


@dataclass
class Moment:
    """A clock that is that many seconds ahead."""

    ahead: float = 0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None: ...


LATER = Moment(60)


@dataclass
class Snapshot:
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    contents: dict[bytes, bytes] = field(default_factory=dict)
    read: list[bytes] = field(default_factory=list)

    def __getitem__(self, path: bytes) -> Entry:
        return next(entry for entry in self.entries if entry.path == path)

    @property
    def paths(self) -> list[bytes]:
        return [entry.path for entry in self.entries]

    def pieces(self, entry: Entry) -> Iterator[bytes]:
        content = self.contents[entry.refs] if entry.refs else b""
        yield from (content[at : at + 1000] for at in range(0, len(content), 1000))

    def items(self) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        return ((entry, self.pieces(entry)) for entry in self.entries)


def source_of(directory: Path, clock: Moment = LATER, **settings: Any) -> FilesSource:
    url = "files://" + "".join(f"%{byte:02x}" for byte in os.fsencode(directory)).replace(
        "%2f", "/"
    )
    return FilesSource(SourceSettings(SourceName("tree"), url, **settings), clock)


def back_up(
    directory: Path,
    parent: Snapshot | None = None,
    clock: Moment = LATER,
    before_open: Callable[[Item], None] = lambda item: None,
    **settings: Any,
) -> Snapshot:
    since = iter(parent.entries) if parent is not None else None
    dump = source_of(directory, clock, **settings).dump(PART, since)
    made = Snapshot(problems=dump.problems)
    if parent is not None:
        made.contents = parent.contents
    for item in items_of(dump):
        before_open(item)
        try:
            made.entries.append(_keep(made, item) if item.open is not None else item.entry)
        except SourceUnreadable as error:
            dump.problems.append(Problem(item.entry.text, error.message))
    return made


def _keep(made: Snapshot, item: Item) -> Entry:
    assert item.open is not None
    reader = item.open()
    buffer = memoryview(bytearray(1 << 16))
    content = b""
    while count := reader.readinto(buffer):
        content += buffer[:count]
    entry = reader.close()
    made.read.append(entry.path)
    digest = hashlib.sha256(content).digest()
    made.contents[digest] = content
    holes = sum(length for _, length in entry.meta.get("holes", ()))
    return entry._replace(size=len(content) + holes, refs=digest)


def target_of(directory: Path, *, overwrite: bool = False) -> FilesTarget:
    return FilesTarget(os.fsencode(directory), RESTORE, overwrite=overwrite)


def load(snapshot: Snapshot, target: FilesTarget) -> LoadReport:
    target.prepare(snapshot.entries, sum(entry.content_bytes for entry in snapshot.entries))
    report = target.load(GivenContent(snapshot.items()))
    differing = target.compare(snapshot.entries)
    assert differing == []
    return report


def restore(snapshot: Snapshot, directory: Path, *, overwrite: bool = False) -> LoadReport:
    target = target_of(directory, overwrite=overwrite)
    report = load(snapshot, target)
    target.commit()
    target.finish()
    return report


def content_of(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def look_at(directory: Path, *, root_time: bool = True) -> dict[bytes, Any]:
    """Everything that can be known of a tree; names of one inode have the first one's path."""
    top = os.fsencode(directory)
    found: dict[bytes, Any] = {}
    firsts: dict[int, bytes] = {}
    for path in _paths(top):
        name = path[len(top) + 1 :]
        info = os.lstat(path)
        what: Any = None
        if stat.S_ISREG(info.st_mode):
            # Sparse files of gigabytes are looked at by their ranges, in tests of their own.
            what = content_of(path) if info.st_size < 1 << 24 else info.st_size
        elif stat.S_ISLNK(info.st_mode):
            what = os.readlink(path)
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            what = info.st_rdev
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        }
        first = name
        if not stat.S_ISDIR(info.st_mode):
            first = firsts.setdefault(info.st_ino, name)
        time = info.st_mtime_ns if name or root_time else None
        found[name] = (info.st_mode, info.st_uid, info.st_gid, time, what, xattrs, first)
    return found


def _paths(top: bytes) -> Iterator[bytes]:
    yield top
    if stat.S_ISDIR(os.lstat(top).st_mode):
        for name in sorted(os.listdir(top)):
            yield from _paths(top + b"/" + name)


def write(path: Path, content: bytes = b"content", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def in_child(work: Callable[[], object], user: int | None = None) -> int:
    """Run in a child process, as another user where we may; its exit code, or minus a signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests: not ours
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if user is not None and ROOT:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def as_ordinary_user(work: Callable[[], object]) -> None:
    """The work holds for a user who is not root."""
    assert in_child(work, user=65534) == 0


def steps() -> Iterable[int]:
    """Every number from 1, and at most that many as would mean that something never ends."""
    return range(1, 2000)


def killed() -> int:
    return -signal.SIGKILL
