"""
Getting chunks back, each checked against its name.

A stream of chunks is fetched ahead in windows: the frames that a window needs are grouped by pack,
near ones are fetched in one request, and threads open them while the window before is being used.
Where a chunk is stored twice and one copy is damaged, the other one is taken.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from kryonix_backup.crypto.keys import TenantKeys
from kryonix_backup.crypto.naming import ChunkNamer
from kryonix_backup.crypto.seal import Sealer
from kryonix_backup.errors import Damaged, ObjectMissing
from kryonix_backup.model import KIB, MIB, Blob, ChunkId, Entry, PackId, RepositoryId
from kryonix_backup.repository.content import Ref
from kryonix_backup.repository.index import Found, Index
from kryonix_backup.repository.layout import pack_name
from kryonix_backup.repository.pack import Frame, PackInfo, open_frame
from kryonix_backup.storage.store import ObjectStore

log = logging.getLogger(__name__)

_WINDOW_BYTES = 8 * MIB
_WINDOW_ROWS = 4096
_CACHED_FRAMES = 12
_NEAR_BYTES = 128 * KIB  # fetching so much for nothing is cheaper than one more request
_REQUEST_BYTES = 4 * MIB
_LITTLE = 4  # a chunk of less than one part in so many of its frame is copied out of it
# Python's lock is handed over around each hash, which for a smaller chunk costs more than the hash:
# such a chunk is checked by whoever takes it from the stream, not by the thread that fetched it.
_CHECKED_AHEAD_BYTES = 64 * KIB
_READERS = 3


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a reader needs of a repository."""

    store: ObjectStore
    keys: TenantKeys
    repository: RepositoryId
    namer: ChunkNamer
    index: Index


class _Run(NamedTuple):
    """Frames of one pack that are fetched together."""

    pack: PackInfo
    frames: tuple[Frame, ...]


class ChunkReader:
    """Reads chunks of one repository; every method may be called from several threads."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._lock = threading.Lock()
        self._sealers: dict[PackId, Sealer] = {}
        self._frames: OrderedDict[tuple[PackId, int], Blob] = OrderedDict()

    def read(self, chunk: ChunkId) -> Blob:
        """The content of one chunk; raises Damaged or ObjectMissing, naming what depends on it."""
        failure: Damaged | ObjectMissing | None = None
        for found in self._shelf.index.find_all(chunk):
            try:
                raw = self._frame(found.pack, found.place.frame)
                return self._slice(chunk, found, raw)
            except (Damaged, ObjectMissing) as error:
                log.warning("chunk %s cannot be read: %s", chunk.hex(), error.message)
                failure = failure or error
        raise failure or Damaged(f"chunk {chunk.hex()} is in no pack that the index names")

    def stream(self, flow: Iterable[Ref | Entry]) -> Iterator[Blob | Entry]:
        """
        The contents of these chunks, in order, fetched ahead of their use.

        Entries among them come out where they went in. Raises Damaged and ObjectMissing.
        """
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
            ahead: deque[_Window] = deque()
            try:
                for wanted in _windows(flow):
                    ahead.append(_Window(self, pool, wanted))
                    if len(ahead) > 1:
                        yield from ahead.popleft()
                while ahead:
                    yield from ahead.popleft()
            finally:
                for window in ahead:
                    window.cancel()

    def _frame(self, pack: PackInfo, frame: Frame) -> Blob:
        key = (pack.id, frame.offset)
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
        sealed = self._shelf.store.get_range(pack_name(pack.id), frame.offset, frame.sealed)
        return self.open(pack, frame, sealed)

    def cached(self, pack: PackInfo, frame: Frame) -> Blob | None:
        """The raw bytes of a frame that was opened a moment ago, or None."""
        with self._lock:
            return self._frames.get((pack.id, frame.offset))

    def open(self, pack: PackInfo, frame: Frame, sealed: Blob) -> Blob:
        """The raw bytes of a frame out of its sealed ones; raises Damaged."""
        where = f"{pack_name(pack.id)} at byte {frame.offset}"
        raw = open_frame(self._sealer(pack), frame, sealed, where)
        with self._lock:
            self._frames[pack.id, frame.offset] = raw
            while len(self._frames) > _CACHED_FRAMES:
                self._frames.popitem(last=False)
        return raw

    def _slice(self, chunk: ChunkId, found: Found, raw: Blob) -> Blob:
        start, length = found.place.start, found.place.length
        data = memoryview(raw)[start : start + length]
        if not self.is_named(data, chunk):
            raise Damaged(f"chunk {chunk.hex()} in {pack_name(found.pack.id)} is not what it was")
        return data

    def is_named(self, data: Blob, chunk: ChunkId) -> bool:
        """Whether that is the content of the chunk."""
        return self._shelf.namer(data) == chunk

    def _sealer(self, pack: PackInfo) -> Sealer:
        sealer = self._sealers.get(pack.id)
        if sealer is None:
            shelf = self._shelf
            try:
                sealer = Sealer(pack.header, shelf.keys, shelf.repository, "pack")
            except Damaged as error:  # of another tenant, or its key was lost
                raise Damaged(f"{pack_name(pack.id)} does not open: {error.message}") from error
            if len(self._sealers) >= 4096:
                self._sealers.clear()
            self._sealers[pack.id] = sealer
        return sealer

    def plan(self, wanted: Iterable[ChunkId]) -> tuple[dict[ChunkId, Found], list[_Run]]:
        """Where each chunk is, and which frames to fetch together."""
        found: dict[ChunkId, Found] = {}
        frames: dict[PackId, tuple[PackInfo, set[Frame]]] = {}
        for chunk in wanted:
            place = self._shelf.index.find(chunk)
            if place is None:
                continue  # whoever takes it is told so
            found[chunk] = place
            frames.setdefault(place.pack.id, (place.pack, set()))[1].add(place.place.frame)
        runs = [run for pack, needed in frames.values() for run in _runs(pack, sorted(needed))]
        return found, runs

    def fetch(
        self, run: _Run, chunks: Sequence[ChunkId], found: dict[ChunkId, Found]
    ) -> dict[ChunkId, Blob]:
        """
        The chunks of one run of frames; those that are damaged are left out.

        Those below `_CHECKED_AHEAD_BYTES` are still to be checked.
        """
        try:
            opened = self._open_run(run)
        except (Damaged, ObjectMissing) as error:
            # Each chunk is then read by itself: only some may be damaged, or stored twice.
            log.warning("%s", error.message)
            return {}
        contents: dict[ChunkId, Blob] = {}
        for chunk in chunks:
            frame, start, length = found[chunk].place
            raw = opened[frame.offset]
            data = memoryview(raw)[start : start + length]
            if length >= _CHECKED_AHEAD_BYTES and not self.is_named(data, chunk):
                continue  # whoever takes it is told so
            # A view keeps its whole frame in memory, and a window may hold thousands of them.
            contents[chunk] = data if length >= len(raw) // _LITTLE else bytes(data)
        return contents

    def _open_run(self, run: _Run) -> dict[int, Blob]:
        opened: dict[int, Blob] = {}
        missing = []
        for frame in run.frames:
            raw = self.cached(run.pack, frame)
            if raw is None:
                missing.append(frame)
            else:
                opened[frame.offset] = raw
        if missing:
            start = missing[0].offset
            length = missing[-1].offset + missing[-1].sealed - start
            name = pack_name(run.pack.id)
            body = memoryview(self._shelf.store.get_range(name, start, length))
            for frame in missing:
                at = frame.offset - start
                opened[frame.offset] = self.open(run.pack, frame, body[at : at + frame.sealed])
        return opened


class _Window:
    """The chunks of one stretch of a stream, being fetched."""

    def __init__(
        self, reader: ChunkReader, pool: ThreadPoolExecutor, wanted: list[Ref | Entry]
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        found, runs = reader.plan(
            dict.fromkeys(ref.chunk for ref in wanted if isinstance(ref, Ref))
        )
        by_frame: dict[tuple[PackId, int], list[ChunkId]] = {}
        for chunk, place in found.items():
            by_frame.setdefault((place.pack.id, place.place.frame.offset), []).append(chunk)
        self._future: dict[ChunkId, Future[dict[ChunkId, Blob]]] = {}
        for run in runs:
            chunks = [c for frame in run.frames for c in by_frame[run.pack.id, frame.offset]]
            future = pool.submit(reader.fetch, run, chunks, found)
            self._future.update(dict.fromkeys(chunks, future))

    def __iter__(self) -> Iterator[Blob | Entry]:
        for wanted in self._wanted:
            if isinstance(wanted, Entry):
                yield wanted
                continue
            raw = self._take(wanted.chunk)
            if len(raw) != wanted.length:
                raise Damaged(
                    f"chunk {wanted.chunk.hex()} has {len(raw)} bytes instead of {wanted.length}"
                )
            yield raw

    def _take(self, chunk: ChunkId) -> Blob:
        future = self._future.get(chunk)
        data = future.result().get(chunk) if future is not None else None
        if data is None:
            return self._reader.read(chunk)
        if len(data) < _CHECKED_AHEAD_BYTES and not self._reader.is_named(data, chunk):
            return self._reader.read(chunk)
        return data

    def cancel(self) -> None:
        """Fetch nothing more."""
        for future in self._future.values():
            future.cancel()


def _windows(flow: Iterable[Ref | Entry]) -> Iterator[list[Ref | Entry]]:
    window: list[Ref | Entry] = []
    size = 0
    for each in flow:
        window.append(each)
        if isinstance(each, Ref):
            size += each.length
        if size >= _WINDOW_BYTES or len(window) >= _WINDOW_ROWS:
            yield window
            window, size = [], 0
    if window:
        yield window


def _runs(pack: PackInfo, frames: list[Frame]) -> Iterator[_Run]:
    run: list[Frame] = []
    for frame in frames:
        if run:
            gap = frame.offset - (run[-1].offset + run[-1].sealed)
            length = frame.offset + frame.sealed - run[0].offset
            if gap > _NEAR_BYTES or length > _REQUEST_BYTES:
                yield _Run(pack, tuple(run))
                run = []
        run.append(frame)
    yield _Run(pack, tuple(run))
