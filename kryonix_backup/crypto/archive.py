"""
The outer envelope of archive objects: AES-256-CBC, then HMAC-SHA-256 over what came of it.

What is inside is sealed already; the envelope is a second lock under a key that lives a year. Each
object has two keys of its own, HKDF-SHA-256 of the archive key with a random salt and the object's
name, one to encrypt and one to authenticate. Nothing is decrypted before the whole is known to be
what was written (encrypt then MAC), so that padding tells nobody anything.
"""

from __future__ import annotations

import hmac
import os
import struct
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7

from kryonix_backup.crypto.keys import TenantKeys
from kryonix_backup.errors import Damaged, FormatUnsupported
from kryonix_backup.model import Blob, KeyId, RepositoryId
from kryonix_backup.settings import Secret

MAGIC = b"KRYA"
VERSION = 1
_HEADER = struct.Struct(">4sB3x16s32s16s")  # magic, version, key, salt, IV
_MAC_BYTES = 32
_BLOCK_BITS = 128


def seal_archive(name: str, content: Blob, keys: TenantKeys, repository: RepositoryId) -> bytes:
    """A whole archive object, sealed for this name and this repository; raises KeyUnusable."""
    key = keys.of_archive.current
    salt, iv = os.urandom(32), os.urandom(16)
    header = _HEADER.pack(MAGIC, VERSION, bytes.fromhex(key.id), salt, iv)
    encrypting, authenticating = _keys(key.secret, salt, name, repository)
    pad, cipher = PKCS7(_BLOCK_BITS).padder(), Cipher(AES256(encrypting), CBC(iv)).encryptor()
    sealed = b"".join((cipher.update(pad.update(content)), cipher.update(pad.finalize())))
    body = header + sealed + cipher.finalize()
    return body + hmac.digest(authenticating, body, sha256)


def open_archive(name: str, sealed: Blob, keys: TenantKeys, repository: RepositoryId) -> bytes:
    """
    What `seal_archive` sealed.

    Raises Damaged for one changed bit, another name or repository, or a key that this tenant does
    not have; KeyUnusable where the key's state forbids to open; FormatUnsupported for what a newer
    version wrote.
    """
    if len(sealed) < _HEADER.size + _MAC_BYTES:
        raise Damaged(f"{name} is cut short")
    magic, version, key_id, salt, iv = _HEADER.unpack_from(sealed)
    if magic != MAGIC or bytes(sealed[5:8]) != bytes(3):
        raise Damaged(f"{name} is not an archive object")
    if version != VERSION:
        raise FormatUnsupported(f"{name} has version {version}; this is {VERSION}")
    secret = keys.of_archive.data_key(KeyId(key_id.hex()))
    encrypting, authenticating = _keys(secret, salt, name, repository)
    body, mac = memoryview(sealed)[:-_MAC_BYTES], bytes(sealed[-_MAC_BYTES:])
    if not hmac.compare_digest(hmac.digest(authenticating, body, sha256), mac):
        raise Damaged(f"{name} was changed, moved or cut since it was written")
    cipher, unpad = Cipher(AES256(encrypting), CBC(iv)).decryptor(), PKCS7(_BLOCK_BITS).unpadder()
    padded = cipher.update(body[_HEADER.size :]) + cipher.finalize()
    return unpad.update(padded) + unpad.finalize()


def _keys(secret: Secret, salt: bytes, name: str, repository: RepositoryId) -> tuple[bytes, bytes]:
    info = b"\0".join((b"kryonix-backup archive v1", repository.encode(), name.encode()))
    both = HKDF(SHA256(), 64, salt, info).derive(secret.reveal())
    return both[:32], both[32:]
