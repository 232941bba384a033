"""What others on the machine can see of processes while they run: arguments, environment, files."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import NamedTuple, Self

_LOOK_S = 0.02
_FILES_EVERY = 5  # looks
_MOST_BYTES = 1 << 20


class Seen(NamedTuple):
    """One program that ran, as it was seen once."""

    command: bytes
    environment: bytes

    @property
    def program(self) -> str:
        """The name of its file."""
        return os.path.basename(self.command.split(b"\0")[0].decode(errors="replace"))


class Watch:
    """
    Looks at some processes and all that they start, from beginning to end.

    What ends within a fiftieth of a second may be missed. ``files`` holds what lay in temporary
    files, those without a name included; ``strays`` their names where they were not below one of
    the folders.
    """

    def __init__(self, temporary: Path, *allowed: Path) -> None:
        self.programs: set[Seen] = set()
        self.files: set[bytes] = set()
        self.strays: set[str] = set()
        self._temporary = temporary
        self._allowed = tuple(str(path) for path in (temporary, *allowed))
        self._family: set[int] = set()
        self._foreign: set[int] = set()
        self._count = 0
        self._lock = threading.Lock()
        self._known: set[tuple[object, ...]] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self._failed: list[BaseException] = []

    def add(self, pid: int) -> None:
        """Look at this one, and at its children."""
        with self._lock:
            self._family.add(pid)
            self._foreign.discard(pid)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        assert not self._failed, self._failed

    def _run(self) -> None:
        try:
            while not self._over.wait(_LOOK_S):
                self._look()
        except BaseException as error:
            self._failed.append(error)
            raise

    def _look(self) -> None:
        for pid in self._living():
            folder = Path(f"/proc/{pid}")
            try:
                # In this order: what replaces a process in between is seen with its own.
                command = (folder / "cmdline").read_bytes()
                # An empty one is of a process that is being replaced, or has ended.
                if command and (pid, command) not in self._known:
                    self._known.add((pid, command))
                    self.programs.add(Seen(command, (folder / "environ").read_bytes()))
                if self._count % _FILES_EVERY == 0:
                    for descriptor in (folder / "fd").iterdir():
                        self._file(descriptor)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it has ended, or belongs to nobody but root
        for path in self._temporary.rglob("*"):
            self._content(path, path)
        self._count += 1

    def _file(self, descriptor: Path) -> None:
        try:
            name = os.readlink(descriptor)
        except OSError:
            return
        place = name.removesuffix(" (deleted)")
        if place.startswith(("/tmp/", "/var/tmp/", "/dev/shm/")):
            if not place.startswith(self._allowed):
                self.strays.add(place)
            if place.startswith(str(self._temporary)):
                self._content(descriptor, place)

    def _content(self, path: Path, name: object) -> None:
        try:
            info = path.stat()
            known = (name, info.st_ino, info.st_size, info.st_mtime_ns)
            if path.is_file() and known not in self._known:
                self._known.add(known)
                with path.open("rb") as file:
                    self.files.add(file.read(_MOST_BYTES))
        except OSError:
            return  # it has gone

    def _living(self) -> set[int]:
        there = {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        with self._lock:
            self._foreign &= there
            self._family &= there
            new = there - self._foreign - self._family
            parents = {pid: parent for pid in new if (parent := _parent(pid)) is not None}
            while more := {pid for pid, parent in parents.items() if parent in self._family}:
                self._family |= more  # and stays, when its parent ends
                parents = {pid: each for pid, each in parents.items() if pid not in more}
            self._foreign |= set(parents)
            return set(self._family)


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[1])
