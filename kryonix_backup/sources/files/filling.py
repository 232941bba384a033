"""
Writing the content of restored files, that of large ones in threads of their own.

The kernel finds room for a file page by page while it is written to, and the writing thread waits
for that: with several large files under way at once nobody else does.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Semaphore
from typing import NamedTuple

from blake3 import blake3

from kryonix_backup.errors import RestoreError
from kryonix_backup.model import KIB, Blob

# For smaller files handing them over costs more than it wins.
LARGE_BYTES = 256 * KIB
_THREADS = 2
_MOST_PIECES = 8  # handed over and not written yet; a piece is 1 MiB at most


class Filled(NamedTuple):
    """What was written into a file: the digest of it, and how many bytes."""

    digest: bytes
    bytes: int


def fill(fd: int, pieces: Iterable[Blob], holes: Sequence[Sequence[int]]) -> Filled:
    """Write the pieces one after the other, passing over the holes; raises RestoreError."""
    hasher = blake3()
    if holes:
        pieces = _between_holes(fd, pieces, holes)
    written = 0
    for piece in pieces:
        hasher.update(piece)
        count = os.write(fd, piece)
        written += len(piece)
        if count < len(piece):
            _write_rest(fd, memoryview(piece)[count:])
    return Filled(hasher.digest(), written)


class _GivenUp(Exception):
    """Handed over where no more pieces come, and the file is not to be touched again."""


_Handed = queue.SimpleQueue[Blob | _GivenUp | None]


class Fillers:
    """Threads that `fill` files; `close` ends them, whatever has happened in between."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fill")
        self._room = Semaphore(_MOST_PIECES)
        self._under_way: set[_Handed] = set()

    def fill(
        self, fd: int, pieces: Iterable[Blob], holes: Sequence[Sequence[int]]
    ) -> Future[Filled]:
        """
        Hand over the pieces, waiting where too many are not written yet.

        The file must stay open until the result is there; where the pieces raise, nobody writes
        into it any more when this does: its number may be another file's next.
        """
        handed: _Handed = queue.SimpleQueue()
        self._under_way.add(handed)
        filled: Future[Filled] | None = None
        try:
            filled = self._pool.submit(self._fill, fd, handed, holes)
            for piece in pieces:
                self._room.acquire()
                handed.put(piece)
            handed.put(None)
        except BaseException:
            handed.put(_GivenUp())
            if filled is not None:
                wait([filled])
            raise
        return filled

    def close(self) -> None:
        """End the threads; what was handed over whole is written first."""
        # An interrupt may come at any place, between two lines of `fill` too: a thread that was
        # never told of an end would wait for it, and the process for the thread.
        for handed in list(self._under_way):
            handed.put(_GivenUp())
        self._pool.shutdown()

    def _fill(self, fd: int, handed: _Handed, holes: Sequence[Sequence[int]]) -> Filled:
        pieces = self._taken(handed)
        try:
            return fill(fd, pieces, holes)
        finally:
            for _ in pieces:
                pass  # it failed, and whoever hands over the rest must not wait for ever
            self._under_way.discard(handed)

    def _taken(self, handed: _Handed) -> Iterator[Blob]:
        while (piece := handed.get()) is not None:
            if isinstance(piece, _GivenUp):
                raise piece
            self._room.release()
            yield piece


def _between_holes(
    fd: int, pieces: Iterable[Blob], holes: Iterable[Iterable[int]]
) -> Iterator[Blob]:
    """The pieces cut at the holes, each to be written where the file then stands."""
    coming = iter(holes)
    at = 0
    start, length = next(coming, (None, 0))
    for piece in pieces:
        view = memoryview(piece)
        while view:
            while start is not None and at == start:
                at = os.lseek(fd, at + length, os.SEEK_SET)
                start, length = next(coming, (None, 0))
            count = len(view) if start is None else min(len(view), start - at)
            if count <= 0:
                raise RestoreError("a file's holes are not in order")
            yield view[:count]
            view = view[count:]
            at += count
    while start is not None:
        at = start + length
        start, length = next(coming, (None, 0))
    os.ftruncate(fd, at)


def _write_rest(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]
