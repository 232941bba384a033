"""Chunks that tests keep, in a dictionary or in a repository."""

from __future__ import annotations

from kryonix_backup.crypto.naming import ChunkNamer
from kryonix_backup.model import ChunkId
from kryonix_backup.repository.repository import Repository
from kryonix_backup.settings import Secret


class Shelf:
    """Keeps chunks under their names, and counts what is read."""

    def __init__(self) -> None:
        self.chunks: dict[ChunkId, bytes] = {}
        self.reads: list[ChunkId] = []
        self._name = ChunkNamer(Secret(bytes(32)))

    def keep(self, raw: bytes) -> ChunkId:
        chunk = self._name(raw)
        self.chunks[chunk] = raw
        return chunk

    def read(self, chunk: ChunkId) -> bytes:
        self.reads.append(chunk)
        return self.chunks[chunk]


def keep(repository: Repository, *chunks: bytes) -> int:
    """Keep these chunks; how many of them were new."""
    with repository.writer() as writer:
        writer.lane("store").keep(chunks)
    return writer.counts.chunks_new
