"""Processes that outlive the command that starts them, known by pid and start time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from kryonix_backup.clock import Clock

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours; ``started`` tells it from a later process that was given the same pid."""

    name: str
    pid: int
    started: int
    log: str

    @classmethod
    def start(
        cls, name: str, command: Sequence[str], env: Mapping[str, str], directory: Path
    ) -> Self:
        """
        Start it in a session of its own; its output goes to ``directory/NAME.log``.

        It answers signals as usual: a shell's background job ignores SIGINT, and a Prefect worker
        that inherits that ignores SIGTERM too.
        """
        log = directory / f"{name}.log"
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            command[0],
            list(command),
            dict(env),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGINT, signal.SIGTERM],
        )
        return cls(name, pid, start_time(pid) or 0, str(log))

    def alive(self) -> bool:
        """Whether this very process runs."""
        return bool(self.started) and start_time(self.pid) == self.started

    def ask_to_end(self) -> None:
        """Send it SIGTERM, where it still runs."""
        if self.alive():
            os.kill(self.pid, signal.SIGTERM)

    def end(self, clock: Clock, patience_s: float) -> None:
        """
        Return once it and what it has started have ended; killed after ``patience_s``.

        A second SIGTERM would make a Prefect worker leave its runs behind, so none is sent.
        """
        for wait_s in (patience_s, 5.0):
            end = clock.monotonic() + wait_s
            while (left := self._left()) and clock.monotonic() < end:
                clock.sleep(_POLL_S)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _left(self) -> list[int]:
        """What runs in its process group; nothing where the pid has gone to another process."""
        if start_time(self.pid) not in (None, self.started):
            return []
        return [pid for pid, group in _groups() if group == self.pid]

    def to_plain(self) -> dict[str, Any]:
        """The process as the state file holds it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """A process out of `to_plain`'s form."""
        return cls(plain["name"], plain["pid"], plain["started"], plain["log"])

    def last_lines(self, count: int = 20) -> str:
        """The end of its log, to say why it ended."""
        with Path(self.log).open(errors="replace") as lines:
            return "".join(lines.readlines()[-count:])


def _groups() -> Iterator[tuple[int, int]]:
    """Every process that runs, with its process group."""
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _fields(int(folder.name))
        if fields is not None:
            yield int(folder.name), int(fields[2])


def start_time(pid: int) -> int | None:
    """When the process started, in ticks since the machine did; None when it runs no more."""
    fields = _fields(pid)
    return None if fields is None else int(fields[19])


def _fields(pid: int) -> list[str] | None:
    """What the kernel says of a process, from its state on; None when it runs no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields
