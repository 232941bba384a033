"""
One record of the audit chain: who did what, when, why, from where, and what came of it.

A record is canonical JSON. Its hash is SHA-256 of those bytes, it holds the hash of the record
before it, and the tenant's audit key signs its hash: one signature covers all that came before.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Set
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple, Self

from kryonix_backup.crypto.signing import PUBLIC_BYTES, SIGNATURE_BYTES, Signer, is_signed
from kryonix_backup.errors import Damaged
from kryonix_backup.model import Blob, RepositoryId, TenantId

BUNDLED = 1000
"""How many records a bundle holds."""

_GENESIS = b"kryonix-backup audit v1\0"
_ENVELOPE = struct.Struct(f">{PUBLIC_BYTES}s{SIGNATURE_BYTES}s")
_LENGTH = struct.Struct(">I")
_MOST_TEXT = 200
_TEXTS = ("action", "object", "result", "actor", "user", "host", "program", "run", "reason")


class Head(NamedTuple):
    """The last record of a chain: its number and its hash."""

    sequence: int
    hash: bytes


def genesis(repository: RepositoryId, tenant: TenantId) -> Head:
    """What the first record of this tenant's chain in this repository follows."""
    owner = repository.encode() + b"\0" + tenant.encode()
    return Head(0, hashlib.sha256(_GENESIS + owner).digest())


@dataclass(frozen=True, slots=True)
class Origin:
    """Who acts and from where: a person or a flow run, the system's user, host and process."""

    actor: str
    user: str
    host: str
    pid: int
    program: str
    run: str = ""
    reason: str = ""


_ORIGIN = tuple(each.name for each in fields(Origin))


@dataclass(frozen=True, slots=True)
class Deed:
    """
    What is to be recorded; the chain gives it its place.

    ``object`` is the id of a snapshot, a restore or a key, or the name of a source or region; never
    the name of anything that was backed up. ``result`` is ``begun``, what an action came to, or the
    class of the error that ended it. ``accepts`` are ranges, each of a first and a last number, of
    records that are missing or changed and were accepted as such after an inquiry.
    """

    time: datetime
    action: str
    object: str
    result: str
    origin: Origin
    accepts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A deed in its place in the chain."""

    sequence: int
    previous: bytes
    deed: Deed

    def to_bytes(self) -> bytes:
        """The one form in which this record is hashed and stored."""
        return json.dumps(self.to_plain(), sort_keys=True, separators=(",", ":")).encode()

    def to_plain(self) -> dict[str, Any]:
        """The record as JSON can say it; nothing is left out, so that anyone can hash it."""
        deed = self.deed
        return {
            "sequence": self.sequence,
            "previous": self.previous.hex(),
            "time": deed.time.isoformat(),
            "action": deed.action,
            "object": deed.object,
            "result": deed.result,
            **{name: _short(getattr(deed.origin, name)) for name in _ORIGIN},
            "accepts": [list(each) for each in deed.accepts],
        }

    @classmethod
    def from_bytes(cls, raw: Blob) -> Self:
        """A record out of its one form; raises ValueError for anything else."""
        try:
            plain = json.loads(bytes(raw))
            origin = Origin(*[plain[name] for name in _ORIGIN])
            time = datetime.fromisoformat(plain["time"])
            accepts = tuple((int(first), int(last)) for first, last in plain["accepts"])
            deed = Deed(
                time, plain["action"], plain["object"], plain["result"], origin, accepts
            )  # fmt: skip
            record = cls(plain["sequence"], bytes.fromhex(plain["previous"]), deed)
            texts = all(isinstance(plain[name], str) for name in _TEXTS)
            same = texts and record.to_bytes() == raw and time.tzinfo is not None
        except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise ValueError("not a record") from error
        if not same:
            raise ValueError("not in the form of a record")
        return record


def _short(value: Any) -> Any:
    return value[:_MOST_TEXT] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """A record's bytes as they are stored, with the signature over their hash."""

    public: bytes
    signature: bytes
    raw: bytes

    @classmethod
    def of(cls, record: AuditRecord, signer: Signer) -> Self:
        """A record, signed."""
        raw = record.to_bytes()
        return cls(signer.public, signer.sign(hashlib.sha256(raw).digest()), raw)

    @property
    def hash(self) -> bytes:
        """The record's hash."""
        return hashlib.sha256(self.raw).digest()

    def is_signed_by(self, trusted: Set[bytes]) -> bool:
        """Whether the key behind one of these public keys signed it."""
        return self.public in trusted and is_signed(self.public, self.signature, self.hash)

    def record(self) -> AuditRecord:
        """The record itself; raises ValueError."""
        return AuditRecord.from_bytes(self.raw)

    def to_bytes(self) -> bytes:
        """What is sealed: public key, signature, record."""
        return _ENVELOPE.pack(self.public, self.signature) + self.raw

    @classmethod
    def from_bytes(cls, raw: Blob) -> Self:
        """Out of `to_bytes`; raises ValueError."""
        if len(raw) < _ENVELOPE.size:
            raise ValueError("too short for a signed record")
        public, signature = _ENVELOPE.unpack_from(raw)
        return cls(public, signature, bytes(raw[_ENVELOPE.size :]))


def bundle_to_bytes(records: list[SignedRecord]) -> bytes:
    """Signed records one after the other, each after its length."""
    parts = (each.to_bytes() for each in records)
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def bundle_from_bytes(raw: bytes, name: str) -> list[SignedRecord]:
    """The records of a bundle, in order; raises Damaged unless it holds `BUNDLED` of them."""
    records, at, view = [], 0, memoryview(raw)
    try:
        while at < len(raw):
            (length,) = _LENGTH.unpack_from(raw, at)
            at += _LENGTH.size + length
            records.append(SignedRecord.from_bytes(view[at - length : at]))
    except (ValueError, struct.error) as error:
        raise Damaged(f"{name} has the wrong form") from error
    if at != len(raw) or len(records) != BUNDLED:
        raise Damaged(f"{name} is no bundle of {BUNDLED} records")
    return records
