"""
A reader of format 1 that uses nothing of kryonix-backup, written from docs/format.md alone.

It reads a repository in a directory with a passphrase or a key file. Nothing here is fast, and
nothing is forgiven: what does not fit the page is an error.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import brotli
import msgpack
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

HEADER = 56


class Entry(NamedTuple):
    """One row of a leaf."""

    path: bytes
    kind: str
    size: int
    refs: bytes
    indirect: bool
    stamp: Any
    meta: dict[str, Any]


class Reader:
    """A repository of one tenant, in a directory."""

    def __init__(
        self, root: Path, tenant: str, *, passphrase: bytes = b"", key_file: bytes = b""
    ) -> None:
        self.root = root
        self._tenant = tenant
        self._passphrase = passphrase
        self._key_file = key_file
        described = json.loads((root / "format.json").read_bytes())
        assert described["magic"] == "kryonix-backup repository"
        assert (described["version"], described["hash"]) == (1, "blake3")
        self._repository = described["repository"]
        rings = sorted((root / "keys" / self._repository).glob("*"))
        keys = (
            self._keyring(rings[-1])
            if rings
            else [self._key(path) for path in sorted((root / "keys").iterdir())]
        )
        self._data = {key: secret for key, purpose, secret in keys if purpose == "data"}
        (id_key,) = [secret for _, purpose, secret in keys if purpose == "id"]
        info = b"kryonix-backup chunk names v1"
        self._names = HKDFExpand(SHA256(), 32, info).derive(id_key)
        self.index = dict(self._records())

    # ------------------------------------------------------------------ keys and seals

    def _key(self, path: Path) -> tuple[str, str, bytes]:
        stored = json.loads(path.read_bytes())
        (recipient,) = stored.pop("recipients")
        assert (stored["magic"], stored["version"], stored["key"]) == ("kryonix-key", 1, path.name)
        secret = self._unwrapped(recipient, self._context(stored))
        return stored["key"], stored["purpose"], secret

    def _keyring(self, path: Path) -> list[tuple[str, str, bytes]]:
        stored = json.loads(path.read_bytes())
        recipients, sealed = stored.pop("recipients"), base64.b64decode(stored.pop("keys"))
        assert (stored["magic"], stored["version"]) == ("kryonix-keyring", 1)
        assert f"{stored['generation']:08d}" == path.name
        context = self._context(stored)
        listed = json.dumps(recipients, sort_keys=True, separators=(",", ":")).encode()
        ring = AESGCM(self._unwrapped(recipients[0], context))
        rows = json.loads(
            ring.decrypt(sealed[:12], sealed[12:], context + hashlib.sha256(listed).digest())
        )
        return [(row["key"], row["purpose"], base64.b64decode(row["secret"])) for row in rows]

    def _context(self, stored: dict[str, Any]) -> bytes:
        bound = stored | {"repository": self._repository, "tenant": self._tenant}
        return json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()

    def _unwrapped(self, recipient: dict[str, Any], context: bytes) -> bytes:
        salt, nonce, wrapped = (
            base64.b64decode(recipient[name]) for name in ("salt", "nonce", "wrapped")
        )
        if recipient["store"] == "passphrase":
            iterations = recipient["iterations"]
            master = hashlib.pbkdf2_hmac("sha256", self._passphrase, salt, iterations, 32)
        else:
            info = b"kryonix-backup master key v1"
            master = HKDF(SHA256(), 32, salt, info).derive(self._key_file)
        secret = AESGCM(master).decrypt(nonce, wrapped, context)
        assert len(secret) == 32
        return secret

    def _unseal(self, header: bytes, name: str, place: int, extra: bytes, sealed: bytes) -> bytes:
        magic, version, kind, zero, key_id, salt = struct.unpack(">4sBB2s16s32s", header)
        assert (magic, version, zero) == (b"KRYX", 1, b"\0\0")
        parts = ("kryonix-backup v1", str(kind), self._repository, name)
        info = b"\0".join(part.encode() for part in parts)
        key = HKDF(SHA256(), 32, salt, info).derive(self._data[key_id.hex()])
        return AESGCM(key).decrypt(place.to_bytes(12, "big"), sealed, header + extra)

    def _object(self, name: str, kind: int) -> bytes:
        body = (self.root / name).read_bytes()
        assert body[5] == kind
        plain = self._unseal(body[:HEADER], name, HEADER, b"", body[HEADER:])
        return _unpacked(plain[0], plain[9:], int.from_bytes(plain[1:9], "big"))

    # ------------------------------------------------------------------ chunks

    def _records(self) -> Iterator[tuple[bytes, tuple[str, bytes, tuple[int, ...]]]]:
        for path in (self.root / "index").iterdir():
            stored = msgpack.unpackb(self._object(f"index/{path.name}", 3))
            for record in struct.iter_unpack(">32sIIIIBII", stored["records"]):
                pack, size, header = stored["packs"][record[1]]
                name = f"packs/{pack.hex()[:2]}/{pack.hex()}"
                assert (self.root / name).stat().st_size == size
                yield record[0], (name, header, record[2:])

    def chunk(self, chunk: bytes) -> bytes:
        """The content of a chunk."""
        name, header, (offset, sealed, raw, codec, start, length) = self.index[chunk]
        body = (self.root / name).read_bytes()
        assert body[:HEADER] == header
        extra = struct.pack(">BI", codec, raw)
        packed = self._unseal(header, "pack", offset, extra, body[offset : offset + sealed])
        data = _unpacked(codec, packed, raw)[start : start + length]
        assert blake3(data, key=self._names).digest() == chunk
        return data

    def directories(self) -> Iterator[tuple[bytes, tuple[str, bytes, tuple[int, ...]]]]:
        """What the packs themselves say, in the form of `index`."""
        for path in (self.root / "packs").glob("*/*"):
            body = path.read_bytes()
            assert blake3(body).hexdigest() == path.name
            assert path.parent.name == path.name[:2]
            length, magic = struct.unpack(">I4s", body[-8:])
            assert magic == b"KRYE"
            at = len(body) - 8 - length
            sealed = body[at : at + length]
            plain = self._unseal(body[:HEADER], "pack", at, b"directory", sealed)
            for chunk, place in _places(plain):
                yield chunk, (f"packs/{path.parent.name}/{path.name}", body[:HEADER], place)

    # ------------------------------------------------------------------ snapshots

    def snapshots(self) -> list[dict[str, Any]]:
        """Every manifest, oldest first."""
        names = sorted(path.name for path in (self.root / "snapshots").iterdir())
        manifests = [json.loads(self._object(f"snapshots/{name}", 4)) for name in names]
        assert [each["id"] for each in manifests] == names
        assert {each["tenant"] for each in manifests} == {self._tenant}
        return manifests

    def journal(self, restore: str) -> list[dict[str, Any]]:
        """The records of a restore."""
        folder = self.root / "restores" / restore
        return [
            json.loads(self._object(f"restores/{restore}/{path.name}", 6))
            for path in sorted(folder.iterdir())
        ]

    def entries(self, root: tuple[str, int]) -> Iterator[Entry]:
        """The entries of a part's tree."""
        chunk, levels = root
        yield from self._below(bytes.fromhex(chunk), levels)

    def _below(self, chunk: bytes, levels: int) -> Iterator[Entry]:
        for row in msgpack.unpackb(self.chunk(chunk), strict_map_key=False):
            if levels:
                yield from self._below(row[1], levels - 1)
            else:
                yield Entry(*row)

    def content(self, entry: Entry) -> bytes:
        """An entry's content, with its holes."""
        refs = entry.refs
        if entry.indirect:
            refs = b"".join(self.chunk(chunk) for chunk, _ in struct.iter_unpack(">32sI", refs))
        pieces = []
        for chunk, length in struct.iter_unpack(">32sI", refs):
            pieces.append(self.chunk(chunk))
            assert len(pieces[-1]) == length
        data = b"".join(pieces)
        for offset, length in entry.meta.get("holes", ()):
            data = data[:offset] + bytes(length) + data[offset:]
        assert len(data) == entry.size
        return data


def _unpacked(codec: int, packed: bytes, length: int) -> bytes:
    if codec == 0:
        raw = packed
    elif codec == 1:
        raw = zstandard.ZstdDecompressor().decompress(packed, max_output_size=length)
    else:
        assert codec == 2
        raw = brotli.decompress(packed)
    assert len(raw) == length
    return raw


def _places(plain: bytes) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    at = 0
    while at < len(plain):
        offset, sealed, raw, codec, count = struct.unpack_from(">IIIBH", plain, at)
        at += 15
        start = 0
        for _ in range(count):
            chunk, length = struct.unpack_from(">32sI", plain, at)
            at += 36
            yield chunk, (offset, sealed, raw, codec, start, length)
            start += length
