"""Every change of a chain of a thousand records is found and located."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kryonix_backup.crypto.signing import Signer
from kryonix_backup.errors import Damaged
from kryonix_backup.maintenance.audit_report import (
    CHANGED,
    INSERTED,
    MISSING,
    MOVED,
    ROLLED_BACK,
    AuditReport,
)
from kryonix_backup.maintenance.verify_audit import NO_RECORD, NOT_SEEN, verify_audit
from kryonix_backup.model import TenantId
from kryonix_backup.repository.audit import AuditBook
from kryonix_backup.repository.audit_bundle import consolidate
from kryonix_backup.repository.audit_record import AuditRecord, Head, SignedRecord
from kryonix_backup.repository.layout import audit_bundle_name, audit_name
from kryonix_backup.settings import Secret
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.repositories import RecordingStore, reopened
from tests.repository.audited import deed, grow, new_book

COUNT = 1000


@pytest.fixture(scope="module")
def grown() -> tuple[RecordingStore, Head]:
    store, book = new_book()
    return store, grow(book, COUNT)


class Chain:
    """A chain that may be spoilt, and what is then found."""

    def __init__(self, store: RecordingStore, seen: Head | None) -> None:
        self.store = store
        self.book: AuditBook = reopened(store).audit()
        self.seen = seen

    def verify(self) -> AuditReport:
        return verify_audit(self.book, self.seen, FixedClock())

    def found(self) -> list[tuple[str, int, int]]:
        return [each[:3] for each in self.verify().findings]

    def sealed(self, sequence: int) -> bytes:
        return self.store.objects[audit_name(sequence)]

    def place(self, sequence: int, sealed: bytes) -> None:
        self.store.objects[audit_name(sequence)] = sealed


@pytest.fixture
def chain(grown: tuple[RecordingStore, Head]) -> Chain:
    return Chain(grown[0].copy(), grown[1])


def test_a_whole_chain_is_ok(chain: Chain) -> None:
    report = chain.verify()

    assert (report.status, report.records, report.head) == ("ok", COUNT, chain.seen)
    assert report.signatures == COUNT, "each stands alone"
    assert not report.remarks
    assert report.to_plain()["head"]["sequence"] == COUNT


def test_a_whole_chain_with_a_bundle_is_ok(chain: Chain) -> None:
    consolidate(chain.book)
    report = chain.verify()

    assert (report.status, report.records, report.bundles) == ("ok", COUNT, 1)
    assert report.signatures == 1, "one covers all that came before"


@pytest.mark.parametrize("bundled", [False, True], ids=["alone", "bundled"])
def test_every_change_of_a_record_is_located(chain: Chain, bundled: bool) -> None:
    """All thousand at once would hide each other: they are spoilt at every other place."""
    if bundled:
        consolidate(chain.book)
    for parity in (0, 1):
        spoilt = range(1 + parity, COUNT + 1, 2)
        before = dict(chain.store.objects)
        for sequence in spoilt:
            body = bytearray(chain.sealed(sequence))
            body[sequence % len(body)] ^= 1 + sequence % 255
            chain.place(sequence, bytes(body))
        assert chain.found() == [(CHANGED, each, each) for each in spoilt]
        chain.store.objects = before


def test_every_byte_of_a_record_counts(chain: Chain) -> None:
    body = chain.sealed(500)
    for at in range(len(body)):
        spoilt = body[:at] + bytes((body[at] ^ 0xFF,)) + body[at + 1 :]
        with pytest.raises(Damaged):
            chain.book.opened(audit_name(500), spoilt)
    for shorter in (b"", body[:-1], body[:60], body + b"\0"):
        with pytest.raises(Damaged):
            chain.book.opened(audit_name(500), shorter)


def test_every_deletion_is_located(chain: Chain) -> None:
    """One at a time: each leaves its own gap and no other."""
    for parity in (1, 2):
        before = dict(chain.store.objects)
        gone = range(parity, COUNT, 2)
        for sequence in gone:
            chain.store.delete(audit_name(sequence))
        assert chain.found() == [(MISSING, each, each) for each in gone]
        chain.store.objects = before
    for sequence in range(400, 500):
        chain.store.delete(audit_name(sequence))
    assert chain.found() == [(MISSING, 400, 499)]


def test_the_last_record_that_is_gone_is_known_to_who_saw_it(chain: Chain) -> None:
    chain.store.delete(audit_name(COUNT))
    report = chain.verify()
    assert report.status == ROLLED_BACK
    assert [each[:3] for each in report.findings] == [(ROLLED_BACK, COUNT, COUNT)]

    chain.seen = None
    report = chain.verify()
    assert (report.status, report.remarks) == ("ok", (NOT_SEEN,))


@pytest.mark.parametrize("at", [1, 2, 500, 999, 1000])
def test_an_insertion_is_located(chain: Chain, at: int) -> None:
    """Everything from there on is moved up by one, and a copy of another record put in."""
    copy = chain.sealed(7)
    for sequence in range(COUNT, at - 1, -1):
        chain.place(sequence + 1, chain.sealed(sequence))
    chain.place(at, copy)

    found = chain.found()
    if at > 7:
        assert found == [(INSERTED, at, at), (MOVED, at + 1, COUNT + 1)]
    else:
        assert found[0] == (MOVED, at, at), "the copy's own place is taken too"
        assert found[-1][2] == COUNT + 1


def test_an_object_beyond_the_end_is_located(chain: Chain) -> None:
    chain.place(COUNT + 1, chain.sealed(3))
    chain.store.put("audit/readme", b"hello")
    assert chain.found() == [(INSERTED, 0, 0), (INSERTED, COUNT + 1, COUNT + 1)]


@pytest.mark.parametrize("at", [1, 2, 499, 998])
def test_a_record_that_was_cut_out_is_located(chain: Chain, at: int) -> None:
    """It is removed, and everything after it moved down."""
    for sequence in range(at, COUNT):
        chain.place(sequence, chain.sealed(sequence + 1))
    chain.store.delete(audit_name(COUNT))

    report = chain.verify()
    assert [each[:3] for each in report.findings] == [
        (MOVED, at, COUNT - 1),
        (ROLLED_BACK, COUNT, COUNT),
    ]
    assert report.status == ROLLED_BACK


@pytest.mark.parametrize(("one", "two"), [(1, 2), (1, 1000), (250, 750), (999, 1000), (10, 13)])
def test_records_that_changed_places_are_located(chain: Chain, one: int, two: int) -> None:
    first, second = chain.sealed(one), chain.sealed(two)
    chain.place(one, second)
    chain.place(two, first)

    report = chain.verify()
    assert [each[:3] for each in report.findings] == [(MOVED, one, one), (MOVED, two, two)]
    assert audit_name(two) in report.findings[0].reason
    assert audit_name(one) in report.findings[1].reason


def test_a_chain_in_reverse_is_located(chain: Chain) -> None:
    sealed = [chain.sealed(each) for each in range(1, 21)]
    for sequence, body in zip(range(20, 0, -1), sealed, strict=True):
        chain.place(sequence, body)
    assert chain.found() == [(MOVED, each, each) for each in range(1, 21)]


def test_a_record_of_another_tenant_is_located(chain: Chain) -> None:
    store, other = new_book(TenantId("other"))
    grow(other, 3)
    for sequence in (1, 3):
        chain.place(sequence, store.objects[audit_name(sequence)])
    assert chain.found() == [(CHANGED, 1, 1), (CHANGED, 3, 3)]


def _forged(chain: Chain, sequence: int, **changed: Any) -> SignedRecord:
    record = chain.book.single(sequence).record()
    return SignedRecord.of(replace(record, **changed), chain.book.signer)


def _forgeries(chain: Chain) -> Iterator[tuple[SignedRecord, list[tuple[str, int, int]]]]:
    """What someone with the data key could write as record 500."""
    true = chain.book.single(500)
    thief = Signer(Secret(b"x" * 32))
    by_thief = SignedRecord.of(true.record(), thief)
    yield by_thief, [(CHANGED, 500, 500)]
    yield replace(by_thief, public=true.public), [(CHANGED, 500, 500)]
    yield replace(true, raw=b"{}"), [(CHANGED, 500, 500)]
    other = AuditRecord(500, true.record().previous, deed("nothing"))
    yield SignedRecord.of(other, chain.book.signer), [(CHANGED, 501, 501)]
    yield _forged(chain, 500, previous=b"y" * 32), [(CHANGED, 500, 500), (CHANGED, 501, 501)]
    yield chain.book.single(499), [(CHANGED, 500, 501)]


def test_a_record_that_was_written_anew_with_keys_is_located(chain: Chain) -> None:
    for forged, expected in _forgeries(chain):
        chain.place(500, chain.book.seal(audit_name(500), forged.to_bytes()))
        found = chain.found()
        assert {each[0] for each in found} == {CHANGED}
        assert found[0][1] == expected[0][1]
        assert found[-1][2] == expected[-1][2]


def test_a_bundle_is_held_to_account_too(chain: Chain) -> None:
    grow(chain.book, COUNT, chain.seen)
    consolidate(chain.book)
    assert chain.found() == []
    name = audit_bundle_name(1000)
    whole = chain.store.objects[name]

    chain.store.objects[name] = whole[:500] + b"x" + whole[501:]
    assert chain.found() == [(CHANGED, 1, 1000)]
    chain.store.objects[name] = chain.store.objects[audit_bundle_name(2000)]
    assert chain.found() == [(INSERTED, 1, 1000)]
    chain.store.delete(name)
    assert chain.found() == [(MISSING, 1, 1000)]


def test_what_was_accepted_is_told_apart(chain: Chain) -> None:
    chain.store.delete(audit_name(500))
    chain.place(600, b"rubbish")
    head = chain.book.accept(deed("audit accept", accepts=((500, 500), (600, 600))), chain.seen)
    chain.seen = head

    report = chain.verify()
    assert (report.status, report.findings) == ("ok", ())
    assert [each[:3] for each in report.accepted] == [(MISSING, 500, 500), (CHANGED, 600, 600)]
    chain.place(601, b"rubbish")
    assert chain.found() == [(CHANGED, 601, 601)]


def test_what_was_set_back_and_accepted_is_told_apart(chain: Chain) -> None:
    for sequence in range(991, COUNT + 1):
        chain.store.delete(audit_name(sequence))
    assert chain.found() == [(ROLLED_BACK, 991, COUNT)]
    chain.seen = chain.book.accept(deed(accepts=((991, COUNT),)), chain.seen)

    report = chain.verify()
    assert (report.status, report.findings) == ("ok", ())
    assert [each[:3] for each in report.accepted] == [(MISSING, 991, COUNT)]


def test_another_history_is_known_to_who_saw_the_first(chain: Chain) -> None:
    for sequence in range(901, COUNT + 1):
        chain.store.delete(audit_name(sequence))
    grow(chain.book, 150, chain.book.append(deed("another"), None))

    assert chain.found() == [(ROLLED_BACK, COUNT, COUNT)]
    chain.seen = None
    assert chain.found() == []


def test_an_empty_chain_says_what_it_cannot_know() -> None:
    chain = Chain(new_book()[0], None)
    report = chain.verify()

    assert (report.status, report.records) == ("ok", 0)
    assert report.remarks == (NO_RECORD, NOT_SEEN)
    assert report.to_plain()["first"] is None


def test_a_chain_that_was_taken_away_is_told_by_the_snapshots() -> None:
    store, book = new_book()

    report = verify_audit(book, None, FixedClock(), 3)

    assert report.status == "broken"
    assert [each[:3] for each in report.findings] == [(MISSING, 0, 0)]
    assert "3 snapshots" in report.findings[0].reason
    grow(book, 1)
    assert verify_audit(reopened(store).audit(), None, FixedClock(), 3).status == "ok"


def test_a_number_far_away_is_no_reason_to_look_at_all_before_it(chain: Chain) -> None:
    far = 10**12 - 1
    chain.place(far, b"hostile")

    assert chain.found() == [(MISSING, COUNT + 1, far - 1), (CHANGED, far, far)]
