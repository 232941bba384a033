"""
The road of one part of a source, on several threads with bounded memory.

The calling thread reads content into a few buffers and cuts it; worker threads name, compress and
seal what a buffer holds, and the writer's threads store it. All the heavy calls release the GIL.
A buffer is used again when everything in it is kept, so reading waits where storing is slow. The
results come back in the order of reading, and so do the entries of the tree. Where a source can be
read at several places at once, several threads do so, each with buffers of its own.
"""

from __future__ import annotations

import os
import queue
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from threading import Thread
from typing import NamedTuple

from kryonix_backup.backup.sharing import Shared
from kryonix_backup.chunking.fastcdc import FILE_CHUNKS, Cutter
from kryonix_backup.crypto.seal import Kind
from kryonix_backup.errors import SourceUnreadable
from kryonix_backup.model import MIB, ChunkId, Entry, Problem, sort_key
from kryonix_backup.repository.content import RefList
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.tree import Root, TreeWriter
from kryonix_backup.repository.writer import ChunkWriter, Lane
from kryonix_backup.sources.source import Barrier, Dump, Item, Reader

_BUFFER_BYTES = 2 * MIB  # at least twice the greatest chunk
_SPARE_BUFFERS = 2  # beside one for each worker: one being filled, one waiting
_MOST_ENTRIES_WAITING = 4096
_LOOK_EVERY_S = 0.5  # for a failure elsewhere, while waiting for a buffer


class PartCounts(NamedTuple):
    """What one part of a source came to; ``bytes_read`` of its content was read."""

    entries: int = 0
    entries_unchanged: int = 0
    bytes_total: int = 0
    bytes_read: int = 0


class _Piece(NamedTuple):
    """A chunk in a batch: the open entry it belongs to, and where it is in the buffer."""

    owner: RefList
    start: int
    end: int


class _Done(NamedTuple):
    """An entry that is complete once the pieces before it are kept; without content, alone."""

    entry: Entry
    content: RefList | None


class _Batch:
    """One buffer's chunks, and the entries that end among them, in order."""

    def __init__(self, buffer: bytearray, done: queue.SimpleQueue[BaseException | None]) -> None:
        self.buffer = buffer
        self.done = done
        self.view = memoryview(buffer)
        self.used = 0
        self.steps: list[_Piece | _Done] = []
        self.pieces = 0
        self.kept: list[ChunkId] | None = None


class Pipeline:
    """Backs up parts, one after the other, through one `ChunkWriter`."""

    def __init__(
        self,
        repository: Repository,
        writer: ChunkWriter,
        compression: str,
        tell: Callable[[PartCounts], None],
        workers: int | None = None,
    ) -> None:
        self._writer = writer
        self._tell = tell
        self._seed = repository.namer.tree_seed
        self._cutter = Cutter(FILE_CHUNKS, repository.namer.chunker_seed)
        count = workers or len(os.sched_getaffinity(0))
        self._work: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._buffers = 0
        self._want(count + _SPARE_BUFFERS)
        self._workers = [
            Thread(target=self._keep_all, args=(writer.lane(compression),), daemon=True)
            for _ in range(count)
        ]
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """End the threads; everything that was handed to them is done first."""
        for _ in self._workers:
            self._work.put(None)
        for worker in self._workers:
            worker.join()

    def run(self, dump: Dump) -> tuple[Root, PartCounts]:
        """Keep one part's content and its tree; entries that cannot be read become problems."""
        tree = TreeWriter(self._tree_keeper(), self._seed)
        if dump.readers > 1:
            entries, counts = self._side_by_side(dump)
        else:
            entries = []
            add = tree.add if dump.ordered else entries.append
            counts = _Road(self, dump, add, self._tell).run()
        for entry in sorted(entries, key=lambda each: sort_key(each.path)):
            tree.add(entry)
        root = tree.close()
        self._tell(counts)
        return root, counts

    def _side_by_side(self, dump: Dump) -> tuple[list[Entry], PartCounts]:
        """The entries of a part, in no order, as several roads found them."""
        self._want(len(self._workers) + 2 * dump.readers)
        shared = Shared(dump.items)
        entries: list[Entry] = []
        counts = [PartCounts()] * dump.readers

        def ride(number: int) -> None:
            def tell(so_far: PartCounts) -> None:
                counts[number] = so_far
                self._tell(counted(iter(counts)))

            mine = dump._replace(items=shared.items())
            try:
                counts[number] = _Road(self, mine, entries.append, tell).run()
            except BaseException as error:
                self._writer.fail(error)  # who waits for a buffer learns of it there
                raise

        shared.run([
            Thread(target=copy_context().run, args=(shared.guarded, ride, number), daemon=True)
            for number in range(dump.readers)
        ])  # fmt: skip
        return entries, counted(iter(counts))

    def _want(self, buffers: int) -> None:
        for _ in range(buffers - self._buffers):
            self._free.put(bytearray(_BUFFER_BYTES))
        self._buffers = max(buffers, self._buffers)

    def _tree_keeper(self) -> Callable[[bytes], ChunkId]:
        lane = self._writer.lane("zstd:3", Kind.TREE_PACK)
        return lambda raw: lane.keep([raw])[0]

    def _keep_all(self, lane: Lane) -> None:
        while (batch := self._work.get()) is not None:
            try:
                spans = [step[1:] for step in batch.steps if isinstance(step, _Piece)]
                batch.kept = lane.keep_spans(batch.view, spans)
                batch.done.put(None)
            except BaseException as error:
                self._writer.fail(error)
                batch.done.put(error)


class _Road:
    """Items on their way, in order; only one thread is in here."""

    def __init__(
        self,
        pipeline: Pipeline,
        dump: Dump,
        add: Callable[[Entry], None],
        tell: Callable[[PartCounts], None],
    ) -> None:
        self._pipe = pipeline
        self._dump = dump
        self._add = add
        self._tell = tell
        self._keep_tree = pipeline._tree_keeper()
        self._counts = PartCounts()
        self._done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._waiting: deque[_Batch] = deque()
        self._batch = self._new_batch()

    def run(self) -> PartCounts:
        for item in self._dump.items:
            if not isinstance(item, Barrier):  # what came before it was read to its end
                self._take(item)
        self._submit()
        while self._waiting:
            self._finish_first()
        self._pipe._free.put(self._batch.buffer)
        return self._counts

    def _take(self, item: Item) -> None:
        if item.open is None:
            entry = item.entry
            counts = self._counts
            self._counts = counts._replace(
                entries=counts.entries + 1,
                entries_unchanged=counts.entries_unchanged + (1 if entry.refs else 0),
                bytes_total=counts.bytes_total + (entry.size if entry.refs else 0),
            )
            self._batch.steps.append(_Done(entry, None))
            if len(self._batch.steps) >= _MOST_ENTRIES_WAITING:
                self._submit()
            return
        try:
            reader = item.open()
        except SourceUnreadable as error:
            self._dump.problems.append(Problem(item.entry.text, error.message))
            return
        self._read(item.entry, reader)

    def _read(self, entry: Entry, reader: Reader) -> None:
        content = RefList(self._keep_tree)
        try:
            size = self._cut(entry, content, reader)
            final = reader.close()
        except SourceUnreadable as error:
            # What was read so far is kept as chunks that nothing names; the entry is left out.
            self._dump.problems.append(Problem(entry.text, error.message))
            return
        if final.content_bytes != size:
            final = final._replace(size=size + final.size - final.content_bytes)
        counts = self._counts
        self._counts = PartCounts(
            counts.entries + 1,
            counts.entries_unchanged,
            counts.bytes_total + final.size,
            counts.bytes_read + size,
        )
        self._batch.steps.append(_Done(final, content))

    def _cut(self, entry: Entry, content: RefList, reader: Reader) -> int:
        cutter = self._pipe._cutter
        room = len(self._batch.buffer) - self._batch.used
        if room <= min(entry.size, cutter.sizes.greatest):
            self._submit()
        batch, total = self._batch, 0
        start = batch.used
        while count := reader.readinto(batch.view[batch.used :]):
            batch.used += count
            total += count
            if batch.used == len(batch.buffer):
                # Only the last chunk of a full buffer may go on in the next one.
                *whole, carried = cutter.lengths(batch.view[start:])
                self._pieces(content, start, whole)
                start = self._carry(carried)
                batch = self._batch
        self._pieces(content, start, cutter.lengths(batch.view[start : batch.used]))
        return total

    def _pieces(self, content: RefList, start: int, lengths: list[int]) -> None:
        for length in lengths:
            self._batch.steps.append(_Piece(content, start, start + length))
            start += length
        self._batch.pieces += len(lengths)

    def _carry(self, length: int) -> int:
        old = self._batch
        tail = bytes(old.view[old.used - length : old.used])
        self._submit()
        self._batch.view[:length] = tail
        self._batch.used = length
        return 0

    def _submit(self) -> None:
        batch = self._batch
        if batch.pieces:
            self._waiting.append(batch)
            self._pipe._work.put(batch)
            self._batch = self._new_batch()
        elif batch.steps or batch.used:
            # Nothing to keep: only the place of its entries in the order counts.
            batch.kept = []
            self._waiting.append(batch)
            self._batch = self._new_batch()
        self._finish_ready()
        self._tell(self._counts)

    def _new_batch(self) -> _Batch:
        return _Batch(self._buffer(), self._done)

    def _buffer(self) -> bytearray:
        free = self._pipe._free
        while True:
            try:
                if self._waiting:
                    return free.get_nowait()
                return free.get(timeout=_LOOK_EVERY_S)  # other roads have them all
            except queue.Empty:
                if self._waiting:
                    self._finish_first()
                else:
                    self._pipe._writer.check()

    def _finish_ready(self) -> None:
        while self._waiting and self._waiting[0].kept is not None:
            self._finish_first()

    def _finish_first(self) -> None:
        batch = self._waiting.popleft()
        while batch.kept is None:
            if (failure := self._done.get()) is not None:
                raise failure
        ids = iter(batch.kept)
        for step in batch.steps:
            if isinstance(step, _Piece):
                step.owner.add(next(ids), step.end - step.start)
            elif step.content is None:
                self._add(step.entry)
            else:
                path, kind, size, _, _, stamp, meta = step.entry
                self._add(Entry(path, kind, size, *step.content.close(), stamp, meta))
        batch.steps.clear()
        self._pipe._free.put(batch.buffer)


def counted(parts: Iterator[PartCounts]) -> PartCounts:
    """The sum over several parts."""
    sums = [sum(column) for column in zip(*parts, strict=True)]
    return PartCounts(*sums)
