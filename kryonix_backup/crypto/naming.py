"""
Names of chunks, and the tenant's own seeds for cutting.

A chunk's name is BLAKE3 in keyed mode under a key derived from the tenant's id key: names say
nothing about content to anyone without it, and equal data of two tenants have different names.
"""

from __future__ import annotations

from blake3 import blake3
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kryonix_backup.model import Blob, ChunkId
from kryonix_backup.settings import Secret


class ChunkNamer:
    """Names chunks of one tenant; ``chunker_seed`` is 63 bits wide and ``tree_seed`` 32."""

    def __init__(self, id_key: Secret) -> None:
        self._key = _derive(id_key, b"chunk names", 32)
        self.chunker_seed = int.from_bytes(_derive(id_key, b"chunker seed", 8)) >> 1
        self.tree_seed = int.from_bytes(_derive(id_key, b"tree seed", 4))

    def __call__(self, data: Blob) -> ChunkId:
        return ChunkId(blake3(data, key=self._key).digest())

    def __reduce__(self) -> str:
        raise TypeError("a chunk namer holds a key and is never pickled")


def _derive(id_key: Secret, purpose: bytes, length: int) -> bytes:
    return HKDFExpand(SHA256(), length, b"kryonix-backup " + purpose + b" v1").derive(
        id_key.reveal()
    )
