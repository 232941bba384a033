"""Sealed objects other than packs and segments of logs: one compressed content, sealed as one."""

from __future__ import annotations

from kryonix_backup.crypto.keys import TenantKeys
from kryonix_backup.crypto.seal import Kind, open_object, seal_object
from kryonix_backup.errors import Damaged
from kryonix_backup.model import RepositoryId
from kryonix_backup.repository.codec import Codec, compressor, decompress
from kryonix_backup.repository.writer import pack_plain

_MOST_PLAIN_BYTES = 1 << 30


def seal_content(
    kind: Kind, name: str, content: bytes, keys: TenantKeys, repository: RepositoryId
) -> bytes:
    """An object of that name that holds this content."""
    return seal_object(kind, name, pack_plain(compressor("zstd:3"), content), keys, repository)


def open_content(
    kind: Kind, name: str, sealed: bytes, keys: TenantKeys, repository: RepositoryId
) -> bytes:
    """The content of such an object; raises what `open_object` raises."""
    plain = open_object(kind, name, sealed, keys, repository)
    length = int.from_bytes(plain[1:9])
    if length > _MOST_PLAIN_BYTES:
        raise Damaged(f"{name} announces {length} bytes, more than any such object holds")
    try:
        return bytes(decompress(Codec(plain[0]), memoryview(plain)[9:], length))
    except (Damaged, ValueError, IndexError) as error:
        raise Damaged(f"{name} has the wrong form") from error
