"""The audit chain as people read it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kryonix_backup.browse.audit_history import newest_records
from kryonix_backup.crypto.signing import is_signed
from kryonix_backup.repository.audit import AuditBook
from kryonix_backup.repository.audit_bundle import consolidate
from kryonix_backup.repository.layout import audit_bundle_name, audit_name
from kryonix_backup.testing.repositories import RecordingStore
from tests.repository.audited import deed, grow, new_book

Chain = tuple[RecordingStore, AuditBook]


@pytest.fixture
def chain() -> Chain:
    store, book = new_book()
    head = None
    for number in range(12):
        what = deed("restore" if number % 4 == 3 else "backup")
        head = book.append(replace(what, time=what.time + timedelta(hours=number)), head)
    return store, book


def numbers(book: AuditBook, limit: int = 99, **only: Any) -> list[int]:
    asked: dict[str, Any] = {"since": None, "action": None, **only}
    return [each.record.sequence for each in newest_records(book, limit, **asked)]


def test_the_newest_are_shown_oldest_first(chain: Chain) -> None:
    assert numbers(chain[1]) == list(range(1, 13))
    assert numbers(chain[1], 3) == [10, 11, 12]
    assert numbers(chain[1], action="restore") == [4, 8, 12]
    assert numbers(chain[1], since=deed().time + timedelta(hours=9)) == [10, 11, 12]
    assert numbers(new_book()[1]) == []


def test_what_cannot_be_read_is_passed_over(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    store, book = chain
    store.objects[audit_name(5)] = b"rubbish"
    store.objects[audit_name(6)] = book.seal(audit_name(6), b"x" * 200)

    assert numbers(book) == [1, 2, 3, 4, *range(7, 13)]
    assert len(caplog.records) == 2


def test_bundles_are_read_too() -> None:
    store, book = new_book()
    grow(book, 2005)
    consolidate(book)

    assert numbers(book, 1500) == list(range(506, 2006))
    store.objects[audit_bundle_name(2000)] = b"rubbish"
    assert numbers(book, 1500) == list(range(506, 2006)), "the single ones are still there"


def test_an_auditor_needs_no_key_of_the_tenant(chain: Chain) -> None:
    rows = [each.to_plain() for each in newest_records(chain[1], 99, None, None)]
    before = chain[1].start.hash.hex()
    for shown in json.loads(json.dumps(rows)):
        checks = {name: shown.pop(name) for name in ("hash", "signature", "public_key")}
        raw = json.dumps(shown, sort_keys=True, separators=(",", ":")).encode()
        assert hashlib.sha256(raw).hexdigest() == checks["hash"]
        public, signature = (bytes.fromhex(checks[each]) for each in ("public_key", "signature"))
        assert is_signed(public, signature, bytes.fromhex(checks["hash"]))
        assert shown["previous"] == before
        before = checks["hash"]


def test_a_number_far_away_is_no_reason_to_look_at_all_before_it(chain: Chain) -> None:
    store, book = chain
    store.put(audit_name(10**12 - 1), b"hostile")

    assert numbers(book) == list(range(1, 13))
