"""
Filling packs from several threads at once.

A frame's place in the open pack is taken under a lock; sealing it there, and opening it again to
check it, is not. A full pack is handed on when the last frame in it is sealed and checked, so a
frame that failed its check is never stored. There is one open pack of a kind, and one more for each
upload under way: where storing is slow, filling waits.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from mmap import mmap
from typing import NamedTuple

from kryonix_backup.crypto.keys import TenantKeys
from kryonix_backup.crypto.seal import Kind
from kryonix_backup.model import MIB, Blob, ChunkId, RepositoryId
from kryonix_backup.repository.codec import Codec
from kryonix_backup.repository.pack import PACK_BYTES, ClosedPack, Frame, PackWriter

_BUFFER_BYTES = PACK_BYTES + 4 * MIB  # the last frame and the directory go beyond the limit
_LOOK_EVERY_S = 0.5  # for a failure elsewhere, while waiting


class Sealed(NamedTuple):
    """A frame of new chunks before it has a place: ids and lengths, and the compressed bytes."""

    codec: Codec
    packed: Blob
    raw: int
    chunks: Sequence[tuple[ChunkId, int]]


class _Open:
    """A pack, and how many frames have a place in it that is not filled yet."""

    def __init__(self, writer: PackWriter) -> None:
        self.writer = writer
        self.pending = 0
        self.full = False

    @property
    def ready(self) -> bool:
        return self.full and not self.pending


class Packer:
    """Packs of one kind; `send` takes a closed one, and gives its buffer back by `give_back`."""

    def __init__(
        self,
        kind: Kind,
        keys: TenantKeys,
        repository: RepositoryId,
        uploads: int,
        send: Callable[[Packer, ClosedPack], None],
        check: Callable[[], None],
    ) -> None:
        self._kind = kind
        self._keys = keys
        self._repository = repository
        self._send = send
        self._check = check
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._pack: _Open | None = None
        self._room = threading.Semaphore(uploads + 1)
        self._buffers: queue.SimpleQueue[mmap] = queue.SimpleQueue()

    def add(self, sealed: Sealed, prove: Callable[[Blob], None] | None) -> None:
        """
        Seal one frame; ``prove`` is given what comes out again, and raises where it differs.

        Raises what ``check`` raises while it waits for room.
        """
        pack, frame = self._place(sealed)
        pack.writer.fill(frame, sealed.packed)
        if prove is not None:
            prove(pack.writer.reopen(frame))
        with self._lock:
            pack.pending -= 1
            ready = pack.ready
        if ready:
            self._send(self, pack.writer.close())

    def close(self) -> None:
        """Send what is in the open pack; nothing is being added any more."""
        pack, self._pack = self._pack, None
        if pack is not None:
            self._send(self, pack.writer.close())

    def give_back(self, buffer: mmap) -> None:
        """Take the buffer of a pack that is stored, or given up."""
        self._buffers.put(buffer)
        self._room.release()

    def _place(self, sealed: Sealed) -> tuple[_Open, Frame]:
        while True:
            with self._lock:
                pack = self._pack
                if pack is not None and pack.writer.room_for(
                    len(sealed.packed), len(sealed.chunks)
                ):
                    frame = pack.writer.reserve(
                        sealed.codec, len(sealed.packed), sealed.raw, sealed.chunks
                    )
                    pack.pending += 1
                    if pack.writer.size >= PACK_BYTES:
                        pack.full, self._pack = True, None
                    return pack, frame
                self._pack = None
                if pack is not None:
                    pack.full = True
                ready = pack is not None and pack.ready
            if pack is not None and ready:
                self._send(self, pack.writer.close())
            self._open_another()

    def _open_another(self) -> None:
        with self._opening:
            with self._lock:
                if self._pack is not None:
                    return  # another thread was first
            while not self._room.acquire(timeout=_LOOK_EVERY_S):
                self._check()
            writer = PackWriter(self._kind, self._buffer(), self._keys, self._repository)
            with self._lock:
                self._pack = _Open(writer)

    def _buffer(self) -> mmap:
        try:
            return self._buffers.get_nowait()
        except queue.Empty:
            return mmap(-1, _BUFFER_BYTES)  # takes memory only as it is filled
