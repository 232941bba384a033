"""The engine's progress as an artifact that the UI draws while a task runs."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from kryonix_backup.cli.progress import describe
from kryonix_backup.events import Progress

# A server handles a few dozen requests a second for everyone; a person looks every few seconds.
EVERY_S = 2.0


class ProgressBoard:
    """
    A listener that keeps an artifact up to date from a thread of its own.

    The engine is never kept waiting: `listen` only remembers the newest progress. Use it as a
    context manager inside a task; the artifact belongs to that task's run.
    """

    def __init__(self, key: str, title: str) -> None:
        self._key, self._title = key, title
        self._newest = Progress(stage="starting")
        self._shown: Progress | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish, name=f"progress {key}", daemon=True)
        self._artifact: UUID | None = None

    def listen(self, progress: Progress) -> None:
        """What the engine calls, a few times a second and from any thread."""
        self._newest = progress

    def __enter__(self) -> Self:
        description = self._line(self._newest)
        self._artifact = cast(
            UUID, create_progress_artifact(0.0, key=self._key, description=description)
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            self._show(100.0)

    def _publish(self) -> None:
        while not self._over.wait(EVERY_S):
            if self._newest is not self._shown:
                self._show(percent(self._newest))

    def _show(self, done: float) -> None:
        assert self._artifact is not None  # set before the thread starts
        self._shown = self._newest
        update_progress_artifact(self._artifact, done, description=self._line(self._shown))

    def _line(self, progress: Progress) -> str:
        return f"{self._title}: {describe(progress)}"


def percent(progress: Progress) -> float:
    """How much is done, 0 to 99: only the end of the task makes it 100."""
    if not progress.bytes_total:
        return 0.0
    return min(99.0, 100.0 * progress.bytes_done / progress.bytes_total)
