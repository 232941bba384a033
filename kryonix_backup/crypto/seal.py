"""
Sealing by AES-256-GCM, with a key for every object.

The key of an object is HKDF-SHA-256 (RFC 5869) of a data key, with a random 32-byte salt that
stands in the object's header; what the object is and whose it is goes into HKDF's info. A nonce is
the place of the sealed bytes in the object, so that no (key, nonce) pair can occur twice, however
many writers there are and wherever they crash (NIST SP 800-38D, 8.2.1).
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kryonix_backup.crypto.keys import TenantKeys
from kryonix_backup.errors import Damaged, FormatUnsupported
from kryonix_backup.model import Blob, KeyId, RepositoryId

MAGIC = b"KRYX"
VERSION = 1
TAG_BYTES = 16
_HEADER = struct.Struct(">4sBB2x16s32s")
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    """What a sealed object is; an object never opens as one of another kind."""

    DATA_PACK = 1
    TREE_PACK = 2
    INDEX = 3
    SNAPSHOT = 4
    INTENT = 5
    JOURNAL = 6
    LOG = 7
    AUDIT = 8


class Header(NamedTuple):
    """The plain start of every sealed object: what it is, and how its key is derived."""

    kind: Kind
    key_id: KeyId
    salt: bytes

    def to_bytes(self) -> bytes:
        """The header as it is stored, `HEADER_BYTES` long."""
        return _HEADER.pack(MAGIC, VERSION, self.kind, bytes.fromhex(self.key_id), self.salt)

    @classmethod
    def from_bytes(cls, raw: Blob, name: str) -> Header:
        """A stored header; raises Damaged and FormatUnsupported, naming the object."""
        if len(raw) < HEADER_BYTES:
            raise Damaged(f"{name} is cut short")
        magic, version, kind, key_id, salt = _HEADER.unpack_from(raw)
        if magic != MAGIC or bytes(raw[6:8]) != b"\0\0":
            raise Damaged(f"{name} is not an object of a repository")
        if version != VERSION:
            raise FormatUnsupported(f"{name} has format version {version}; this is {VERSION}")
        if kind not in Kind.__members__.values():
            raise Damaged(f"{name} is of no known kind ({kind})")
        return cls(Kind(kind), KeyId(key_id.hex()), salt)


class Sealer:
    """Seals and opens pieces of one object; a piece opens only at the place it was sealed for."""

    def __init__(
        self, header: Header, keys: TenantKeys, repository: RepositoryId, name: str
    ) -> None:
        info = b"\0".join(
            (
                b"kryonix-backup v1",
                str(int(header.kind)).encode(),
                repository.encode(),
                name.encode(),
            )
        )
        secret = keys.data_key(header.key_id).reveal()
        self._cipher = AESGCM(HKDF(SHA256(), 32, header.salt, info).derive(secret))
        self._aad = header.to_bytes()

    def seal_into(self, place: int, extra: bytes, plain: Blob, out: memoryview) -> None:
        """Fill ``out``, which is `TAG_BYTES` longer than ``plain``; ``extra`` is bound to it."""
        self._cipher.encrypt_into(_nonce(place), plain, self._aad + extra, out)

    def open(self, place: int, extra: bytes, sealed: Blob) -> bytes:
        """What was sealed; raises InvalidTag, which every caller turns into a named Damaged."""
        return self._cipher.decrypt(_nonce(place), sealed, self._aad + extra)


def _nonce(place: int) -> bytes:
    return place.to_bytes(12, "big")


def new_header(kind: Kind, keys: TenantKeys) -> Header:
    """A header with a fresh salt, under the tenant's current data key."""
    return Header(kind, keys.current.id, os.urandom(32))


def seal_object(
    kind: Kind, name: str, plain: Blob, keys: TenantKeys, repository: RepositoryId
) -> bytes:
    """A whole object, sealed for this name and this repository."""
    header = new_header(kind, keys)
    out = bytearray(HEADER_BYTES + len(plain) + TAG_BYTES)
    out[:HEADER_BYTES] = header.to_bytes()
    sealer = Sealer(header, keys, repository, name)
    sealer.seal_into(HEADER_BYTES, b"", plain, memoryview(out)[HEADER_BYTES:])
    return bytes(out)


def open_object(
    kind: Kind, name: str, sealed: Blob, keys: TenantKeys, repository: RepositoryId
) -> bytes:
    """
    What `seal_object` sealed.

    Raises Damaged for one flipped bit, another name, kind or repository, and for a key that this
    tenant does not have; FormatUnsupported for what a newer version wrote.
    """
    header = Header.from_bytes(sealed, name)
    if header.kind is not kind:
        raise Damaged(f"{name} is a {header.kind.name.lower()}, not a {kind.name.lower()}")
    try:
        sealer = Sealer(header, keys, repository, name)
    except Damaged as error:
        raise Damaged(f"{name} does not open: {error.message}") from error
    try:
        return sealer.open(HEADER_BYTES, b"", memoryview(sealed)[HEADER_BYTES:])
    except (InvalidTag, ValueError) as error:
        raise Damaged(f"{name} was changed, moved or cut since it was written") from error


OpenFailed = (InvalidTag, ValueError)
