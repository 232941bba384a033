"""
A master key made from a passphrase or from a key file.

A passphrase goes through PBKDF2-HMAC-SHA-256 (RFC 8018) with a random salt; a key file, which must
hold 32 random bytes or more, through HKDF-SHA-256 (RFC 5869). The result wraps keys by
AES-256-GCM with a random 96-bit nonce: a repository has few keys, far from that mode's limit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from kryonix_backup.crypto.stores.encoding import from_text, to_text
from kryonix_backup.errors import KeyRefused
from kryonix_backup.settings import RootKey, Secret

DEFAULT_ITERATIONS = 600_000  # OWASP's figure for PBKDF2-HMAC-SHA-256; 0.07 s a command
LEAST_ITERATIONS = 100_000
LEAST_KEY_FILE_BYTES = 32
MOST_ITERATIONS = 10_000_000  # an object must not be able to make a command hang

_NONCE_BYTES = 12


class RootKeyStore:
    """A master key derived from what the operator knows or keeps; see the module."""

    def __init__(self, root: RootKey, iterations: int = DEFAULT_ITERATIONS) -> None:
        if (root.passphrase is None) == (root.key_file is None) or root.store is not None:
            raise KeyRefused("exactly one of a passphrase and a key file is needed")
        if root.passphrase is not None and not root.passphrase.reveal():
            raise KeyRefused("the passphrase is empty", "Use one that nobody can guess.")
        if root.key_file is not None and len(root.key_file.reveal()) < LEAST_KEY_FILE_BYTES:
            raise KeyRefused(
                f"the key file holds fewer than {LEAST_KEY_FILE_BYTES} bytes",
                "Make one with 'head -c 32 /dev/urandom > FILE', and keep a copy of it.",
            )
        if iterations < LEAST_ITERATIONS:
            raise KeyRefused(f"{iterations} iterations are fewer than {LEAST_ITERATIONS}")
        self._root = root
        self._iterations = iterations
        self._salt = os.urandom(32)
        self._derived: dict[tuple[bytes, int], AESGCM] = {}
        self._lock = threading.Lock()

    @property
    def kind(self) -> str:
        return "passphrase" if self._root.passphrase is not None else "key-file"

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        nonce = os.urandom(_NONCE_BYTES)
        wrapped = self._cipher(self._salt, self._iterations).encrypt(nonce, key.reveal(), context)
        recipient: dict[str, Any] = {
            "store": self.kind,
            "salt": to_text(self._salt),
            "nonce": to_text(nonce),
            "wrapped": to_text(wrapped),
        }
        if self.kind == "passphrase":
            recipient["iterations"] = self._iterations
        return recipient

    def unwrap(self, recipient: Mapping[str, Any], context: bytes) -> Secret:
        try:
            salt, nonce, wrapped = (
                from_text(recipient[name]) for name in ("salt", "nonce", "wrapped")
            )
            by_passphrase = self._root.passphrase is not None
            iterations = int(recipient["iterations"]) if by_passphrase else LEAST_ITERATIONS
            valid = recipient["store"] == self.kind and ("iterations" in recipient) is by_passphrase
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise KeyRefused("a wrapped key has the wrong form") from error
        if not valid:
            raise KeyRefused(f"a key is not wrapped for a {self.kind}")
        if not LEAST_ITERATIONS <= iterations <= MOST_ITERATIONS or len(nonce) != _NONCE_BYTES:
            raise KeyRefused("a wrapped key asks for parameters that are not allowed")
        try:
            cipher = self._cipher(salt, iterations)
            key = Secret(cipher.decrypt(nonce, wrapped, context))
        except (InvalidTag, ValueError) as error:
            raise KeyRefused(f"the {self.kind} does not open this repository's keys") from error
        with self._lock:
            if iterations >= self._iterations:
                # Keys made from now on share the salt of the last one opened, so that opening a
                # repository costs one derivation. What did not open has no say in it.
                self._salt, self._iterations = salt, iterations
        return key

    def _cipher(self, salt: bytes, iterations: int) -> AESGCM:
        with self._lock:
            if (salt, iterations) not in self._derived:
                self._derived[salt, iterations] = AESGCM(self._derive(salt, iterations))
            return self._derived[salt, iterations]

    def _derive(self, salt: bytes, iterations: int) -> bytes:
        if self._root.passphrase is not None:
            secret = self._root.passphrase.reveal()
            # hashlib's takes twice as long, with the OpenSSL 3 that Python is mostly built with.
            return PBKDF2HMAC(SHA256(), 32, salt, iterations).derive(secret)
        assert self._root.key_file is not None  # __init__ made sure
        secret = self._root.key_file.reveal()
        return HKDF(SHA256(), 32, salt, b"kryonix-backup master key v1").derive(secret)


def master_from(root: RootKey) -> RootKeyStore:
    """The master key that a passphrase or a key file makes."""
    return RootKeyStore(root)
