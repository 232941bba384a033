"""The one form of a record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.crypto.signing import Signer
from kryonix_backup.errors import Damaged
from kryonix_backup.model import RepositoryId, TenantId
from kryonix_backup.repository.audit_record import (
    BUNDLED,
    AuditRecord,
    SignedRecord,
    bundle_from_bytes,
    bundle_to_bytes,
    genesis,
)
from kryonix_backup.settings import Secret
from tests.repository.audited import ORIGIN, deed

SIGNER = Signer(Secret(b"s" * 32))
RECORD = AuditRecord(7, b"h" * 32, deed(accepts=((3, 4), (6, 6))))


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_record_comes_back_as_it_was(actor: str, reason: str) -> None:
    origin = replace(ORIGIN, actor=actor[:200], reason=reason[:200])
    record = replace(RECORD, deed=replace(RECORD.deed, origin=origin))
    assert AuditRecord.from_bytes(record.to_bytes()) == record


def test_words_that_are_too_long_are_cut() -> None:
    origin = replace(ORIGIN, reason="r" * 5000)
    raw = AuditRecord(1, b"", replace(deed(), origin=origin)).to_bytes()
    assert len(raw) < 1000
    assert AuditRecord.from_bytes(raw).deed.origin.reason == "r" * 200


def test_anyone_can_make_the_bytes_again_from_what_json_shows() -> None:
    shown = json.loads(json.dumps(RECORD.to_plain()))
    again = json.dumps(shown, sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.sha256(again).digest() == SignedRecord.of(RECORD, SIGNER).hash


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        RECORD.to_bytes() + b" ",
        RECORD.to_bytes().replace(b'"backup"', b"7"),
        RECORD.to_bytes().replace(b'"accepts":[[3,4],[6,6]]', b'"accepts":[3]'),
        RECORD.to_bytes().replace(b"+00:00", b""),
        b"[" * 100_000,
    ],
    ids=range(9),
)
def test_anything_else_is_no_record(raw: bytes) -> None:
    with pytest.raises(ValueError):
        AuditRecord.from_bytes(raw)


def test_a_signature_covers_the_record() -> None:
    signed = SignedRecord.of(RECORD, SIGNER)
    assert SignedRecord.from_bytes(signed.to_bytes()) == signed
    assert signed.is_signed_by({SIGNER.public})
    assert not replace(signed, raw=signed.raw + b" ").is_signed_by({SIGNER.public})
    assert not signed.is_signed_by({Signer(Secret(b"t" * 32)).public})
    with pytest.raises(ValueError):
        SignedRecord.from_bytes(b"short")


def test_a_bundle_holds_exactly_its_records() -> None:
    signed = SignedRecord.of(RECORD, SIGNER)
    whole = bundle_to_bytes([signed] * BUNDLED)
    assert bundle_from_bytes(whole, "b") == [signed] * BUNDLED
    for wrong in (whole[:-1], whole + b"x", whole + whole, b"", bundle_to_bytes([signed])):
        with pytest.raises(Damaged):
            bundle_from_bytes(wrong, "b")


def test_chains_of_two_owners_begin_differently() -> None:
    one, two = RepositoryId("0" * 32), RepositoryId("1" * 32)
    starts = {
        genesis(one, TenantId("a")),
        genesis(two, TenantId("a")),
        genesis(one, TenantId("b")),
    }
    assert len(starts) == 3
