"""
Keeping chunks: what is new is framed, packed and stored; what is there is only named.

Several threads keep chunks at once, and share the open pack (see `packer`). Closed packs are stored
by uploader threads; when the store is slow, keeping waits, and memory stays what it was.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from mmap import mmap
from types import TracebackType
from typing import NamedTuple, Self

from kryonix_backup.crypto.keys import TenantKeys
from kryonix_backup.crypto.naming import ChunkNamer
from kryonix_backup.crypto.seal import Kind, seal_object
from kryonix_backup.errors import Damaged, ObjectExists
from kryonix_backup.model import KIB, Blob, ChunkId, KeyId, PackId, RepositoryId
from kryonix_backup.repository.codec import Compressor, compressor
from kryonix_backup.repository.index import Index, Segment
from kryonix_backup.repository.layout import new_index_name, pack_name
from kryonix_backup.repository.pack import (
    MAX_CHUNKS_IN_FRAME,
    ClosedPack,
    PackInfo,
    Place,
)
from kryonix_backup.repository.packer import Packer, Sealed
from kryonix_backup.storage.store import ObjectStore

log = logging.getLogger(__name__)

# Neighbouring new chunks are compressed together up to this much raw data: small chunks then
# deduplicate finely and still compress like large ones (benchmarks/chunk_size.py).
FRAME_BYTES = 512 * KIB
_FRAME_SLACK = 64 * KIB
_INDEX_EVERY_CHUNKS = 16_384  # bounds what is held in memory before it goes to the index


Piece = tuple[ChunkId, int, int]
"""A chunk in a buffer: where it starts, and where it ends."""


class Counts(NamedTuple):
    """What was kept so far: bytes are raw for ``new`` and sealed for ``stored``."""

    chunks: int = 0
    chunks_new: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0


@dataclass(frozen=True, slots=True)
class Vault:
    """What a writer needs of a repository: where to store, under which keys and names."""

    store: ObjectStore
    keys: TenantKeys
    repository: RepositoryId
    namer: ChunkNamer
    index: Index
    trusted: frozenset[PackId]
    """Packs that are there and stay: only their chunks need not be stored again."""


class _Stopped(Exception):
    """The run failed in another thread; what failed there is what is raised in the end."""


class ChunkWriter:
    """
    Keeps chunks of one run; leave its context to make everything durable.

    `lane` gives a thread its own way in. After a failure in any thread every further call
    raises, and leaving the context raises what failed first. It raises KeyUnusable, too, where a
    key that sealed is not to be relied on any more.
    """

    def __init__(self, vault: Vault, *, verify: bool = True) -> None:
        self._vault = vault
        self._verify = verify
        self._lock = threading.Lock()
        self._claimed: set[ChunkId] = set()
        self._trusted = set(vault.trusted)
        self._unindexed: list[tuple[PackInfo, list[tuple[ChunkId, Place]]]] = []
        self._sealed_by: set[KeyId] = set()
        self._counts = Counts()
        self._failure: BaseException | None = None
        uploads = vault.store.parallel
        self._packers = {
            kind: Packer(kind, vault.keys, vault.repository, uploads, self._send, self.check)
            for kind in (Kind.DATA_PACK, Kind.TREE_PACK)
        }
        self._uploads: queue.SimpleQueue[tuple[Packer, ClosedPack] | None] = queue.SimpleQueue()
        self._uploaders = [
            threading.Thread(target=self._upload_all, name=f"upload-{number}", daemon=True)
            for number in range(uploads)
        ]
        self._started = False

    @property
    def counts(self) -> Counts:
        """What was kept so far."""
        return self._counts

    def lane(self, compression: str, kind: Kind = Kind.DATA_PACK) -> Lane:
        """A way in for one thread, with a compressor of its own."""
        packer = self._packers[kind]
        return Lane(self, self._vault.namer, compressor(compression), packer, verify=self._verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                self.check()
                for packer in self._packers.values():
                    packer.close()
            except _Stopped:
                pass  # the failure itself is raised below
        self._stop_uploaders()
        if error is not None and not isinstance(error, _Stopped):
            return
        self.raise_failure()
        self._write_index(self._take_unindexed(at_least=1))
        if self._sealed_by:
            self._vault.keys.check_sealed(self._sealed_by)

    def fail(self, error: BaseException) -> None:
        """Make every further call raise, and the context raise this error; the first one counts."""
        with self._lock:
            self._failure = self._failure or error

    def raise_failure(self) -> None:
        """Raise what failed in any thread."""
        if self._failure is not None:
            raise self._failure

    def check(self) -> None:
        """Raise if the run has failed elsewhere."""
        if self._failure is not None:
            raise _Stopped("the run failed in another thread")

    def claim(self, chunks: Sequence[Piece]) -> list[Piece]:
        """Those of the chunks that nobody has stored or is about to; they are the caller's now."""
        new: list[Piece] = []
        fresh_bytes = 0
        with self._lock:
            for piece in chunks:
                chunk, start, end = piece
                if chunk in self._claimed or self._vault.index.is_in(chunk, self._trusted):
                    continue
                self._claimed.add(chunk)
                new.append(piece)
                fresh_bytes += end - start
            counts = self._counts
            self._counts = Counts(
                counts.chunks + len(chunks),
                counts.chunks_new + len(new),
                counts.bytes_new + fresh_bytes,
                counts.bytes_stored,
            )
        return new

    def holds(self, chunks: Iterable[ChunkId]) -> bool:
        """Whether none of these chunks needs to be stored again."""
        with self._lock:
            return all(
                chunk in self._claimed or self._vault.index.is_in(chunk, self._trusted)
                for chunk in chunks
            )

    def _send(self, packer: Packer, pack: ClosedPack) -> None:
        with self._lock:
            if not self._started:
                self._started = True
                for thread in self._uploaders:
                    thread.start()
        self._uploads.put((packer, pack))

    def _upload_all(self) -> None:
        while (each := self._uploads.get()) is not None:
            packer, pack = each
            buffer = pack.body.obj
            assert isinstance(buffer, mmap)
            try:
                if self._failure is None:
                    self._upload(pack)
            except BaseException as error:
                self.fail(error)
            finally:
                pack.body.release()
                packer.give_back(buffer)

    def _upload(self, pack: ClosedPack) -> None:
        try:
            self._vault.store.put(pack_name(pack.info.id), pack.body)
        except ObjectExists:
            # The name is the hash of the bytes: the same pack, whose first answer was lost.
            log.info("pack %s was stored before", pack.info.id)
        with self._lock:
            self._unindexed.append((pack.info, pack.chunks))
            self._sealed_by.add(pack.info.header.key_id)
            self._counts = self._counts._replace(
                bytes_stored=self._counts.bytes_stored + pack.info.size
            )
        self._write_index(self._take_unindexed(at_least=_INDEX_EVERY_CHUNKS))

    def _take_unindexed(self, at_least: int) -> list[tuple[PackInfo, list[tuple[ChunkId, Place]]]]:
        with self._lock:
            if sum(len(chunks) for _, chunks in self._unindexed) < at_least:
                return []
            taken, self._unindexed = self._unindexed, []
            return taken

    def _write_index(self, packs: list[tuple[PackInfo, list[tuple[ChunkId, Place]]]]) -> None:
        if not packs:
            return
        stored = write_segment(self._vault, Segment.of(packs))
        with self._lock:
            self._trusted.update(info.id for info, _ in packs)
            self._claimed.difference_update(chunk for _, chunks in packs for chunk, _ in chunks)
            self._counts = self._counts._replace(bytes_stored=self._counts.bytes_stored + stored)

    def _stop_uploaders(self) -> None:
        if self._started:
            for _ in self._uploaders:
                self._uploads.put(None)
            for thread in self._uploaders:
                thread.join()


class Lane:
    """One thread's way into a `ChunkWriter`."""

    def __init__(
        self,
        writer: ChunkWriter,
        namer: ChunkNamer,
        compress: Compressor,
        packer: Packer,
        *,
        verify: bool,
    ) -> None:
        self._writer = writer
        self._namer = namer
        self._compress = compress
        self._packer = packer
        self._verify = verify

    def keep(self, chunks: Sequence[Blob]) -> list[ChunkId]:
        """The names of these chunks, in order; new ones are sealed into the open pack."""
        ends = list(accumulate(map(len, chunks)))
        return self.keep_spans(
            memoryview(b"".join(chunks)), list(zip([0, *ends], ends, strict=False))
        )

    def keep_spans(self, buffer: memoryview, spans: Sequence[tuple[int, int]]) -> list[ChunkId]:
        """The same for chunks of a buffer (start, end), one after the other."""
        self._writer.check()
        namer = self._namer
        named = [(namer(buffer[start:end]), start, end) for start, end in spans]
        frame: list[Piece] = []
        size = 0
        for piece in self._writer.claim(named):
            length = piece[2] - piece[1]
            if frame and (size + length > FRAME_BYTES + _FRAME_SLACK
                          or len(frame) >= MAX_CHUNKS_IN_FRAME):  # fmt: skip
                self._add(buffer, frame, size)
                frame, size = [], 0
            frame.append(piece)
            size += length
        if frame:
            self._add(buffer, frame, size)
        return [chunk for chunk, _, _ in named]

    def _add(self, buffer: memoryview, chunks: list[Piece], size: int) -> None:
        first, last = chunks[0][1], chunks[-1][2]
        if last - first == size:  # nothing between them, so nothing has to be copied
            raw: Blob = buffer[first:last]
        else:
            raw = b"".join([buffer[start:end] for _, start, end in chunks])
        codec, packed = self._compress(raw)
        lengths = [(chunk, end - start) for chunk, start, end in chunks]
        prove = partial(self._prove, lengths) if self._verify else None
        self._packer.add(Sealed(codec, packed, size, lengths), prove)

    def _prove(self, chunks: list[tuple[ChunkId, int]], raw: Blob) -> None:
        # A chunk that memory or a compressor spoiled is found now, not at the restore.
        view = memoryview(raw)
        start = 0
        for chunk, length in chunks:
            if self._namer(view[start : start + length]) != chunk:
                raise Damaged(
                    f"chunk {chunk.hex()} came out different after sealing",
                    "Nothing wrong was stored. This machine's memory or processor is failing:"
                    " test it, and run the backup on another one.",
                )
            start += length


def write_segment(vault: Vault, segment: Segment) -> int:
    """Store a segment of the index and take it into account; its size in bytes."""
    compress = compressor("zstd:3")
    name = new_index_name()
    plain = pack_plain(compress, segment.to_bytes())
    sealed = seal_object(Kind.INDEX, name, plain, vault.keys, vault.repository)
    vault.store.put(name, sealed)
    vault.index.add({name: segment})
    return len(sealed)


def pack_plain(compress: Callable[[Blob], tuple[int, Blob]], raw: bytes) -> bytes:
    """Raw bytes with their codec and length in front, for sealed objects other than packs."""
    codec, packed = compress(raw)
    return bytes((codec,)) + len(raw).to_bytes(8) + bytes(packed)
