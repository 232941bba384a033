"""
Ed25519 signatures (RFC 8032), by the tenant's own audit key.

A signature is over the hash of a record, with a prefix of its own: a signature of this key can
never stand for anything else.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kryonix_backup.settings import Secret

SIGNATURE_BYTES = 64
PUBLIC_BYTES = 32
_PREFIX = b"kryonix-backup audit v1\0"


class Signer:
    """Signs hashes with a 32-byte seed; ``public`` is what checks its signatures."""

    def __init__(self, seed: Secret) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed.reveal())
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, digest: bytes) -> bytes:
        """The signature over a hash."""
        return self._key.sign(_PREFIX + digest)

    def __reduce__(self) -> str:
        raise TypeError("a signer holds a key and is never pickled")


def is_signed(public: bytes, signature: bytes, digest: bytes) -> bool:
    """Whether the key behind ``public`` signed this hash."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _PREFIX + digest)
    except (InvalidSignature, ValueError):
        return False
    return True
