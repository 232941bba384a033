"""Bundles: written once a thousand, by whoever is there, and stopped anywhere."""

from __future__ import annotations

import pytest

from kryonix_backup.errors import AuditBroken, StoreDenied, StoreUnavailable
from kryonix_backup.repository.audit import AuditBook
from kryonix_backup.repository.audit_bundle import consolidate
from kryonix_backup.repository.audit_record import BUNDLED, Head
from kryonix_backup.repository.layout import audit_bundle_name, audit_name
from kryonix_backup.testing.faults import AnswerLost, FaultyStore
from kryonix_backup.testing.repositories import RecordingStore, reopened
from tests.repository.audited import deed, grow, new_book


@pytest.fixture(scope="module")
def grown() -> tuple[RecordingStore, Head]:
    """Two thousand and three records, none of them in a bundle."""
    store, book = new_book()
    return store, grow(book, 2 * BUNDLED + 3)


@pytest.fixture
def chain(grown: tuple[RecordingStore, Head]) -> tuple[RecordingStore, AuditBook, Head]:
    store = grown[0].copy()
    return store, reopened(store).audit(), grown[1]


Chain = tuple[RecordingStore, AuditBook, Head]


def test_records_are_put_together_and_old_singles_go(chain: Chain) -> None:
    store, book, head = chain
    before = [book.single(each) for each in (1, 1000, 1001, 2003)]
    consolidate(book)

    names = book.names()
    assert names.bundles == {1000, 2000}
    assert names.singles == set(range(1001, 2004))
    assert [book.read(each) for each in (1, 1000, 1001, 2003)] == before
    assert book.append(deed(), head).sequence == 2004
    assert reopened(store).audit().head().sequence == 2004


def test_it_may_be_run_again_and_changes_nothing(chain: Chain) -> None:
    store, book, _ = chain
    consolidate(book)
    before = dict(store.objects)
    consolidate(book)

    assert store.objects == before


@pytest.mark.parametrize("put", range(2))
@pytest.mark.parametrize("lost", [False, True])
def test_stopped_at_a_write_it_is_completed_by_the_next(chain: Chain, put: int, lost: bool) -> None:
    store, book, head = chain
    error = StoreUnavailable("gone")
    fault = AnswerLost(error) if lost else error
    faulty = FaultyStore(store, put=[*[None] * put, fault])
    with pytest.raises(StoreUnavailable):
        consolidate(reopened(faulty).audit())
    assert book.head() == head

    consolidate(book)
    assert book.names().bundles == {1000, 2000}
    assert book.head() == head


def test_stopped_while_it_removes_it_is_completed_by_the_next(chain: Chain) -> None:
    store, book, head = chain
    dying = _Dying(store, 300)
    with pytest.raises(StoreUnavailable):
        consolidate(reopened(dying).audit())
    assert {book.read(each).record().sequence for each in (1, 300, 301, 1000)} == {
        1, 300, 301, 1000,
    }  # fmt: skip

    consolidate(book)
    assert book.names().singles == set(range(1001, 2004))
    assert book.head() == head


class _Dying(FaultyStore):
    """Lets so many objects be removed, and no more."""

    def __init__(self, inner: RecordingStore, deletions: int) -> None:
        super().__init__(inner)
        self._left = deletions

    def delete(self, name: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise StoreUnavailable("gone")
        super().delete(name)


class _Locked(FaultyStore):
    """A store under lock: nothing can be removed."""

    def delete(self, name: str) -> None:
        raise StoreDenied(f"{name} is locked")


def test_where_nothing_can_be_removed_the_singles_stay(chain: Chain) -> None:
    store, book, head = chain
    consolidate(reopened(_Locked(store)).audit())

    names = book.names()
    assert names.bundles == {1000, 2000}
    assert len(names.singles) == head.sequence


def test_singles_stay_beside_a_bundle_that_does_not_open(chain: Chain) -> None:
    store, book, _ = chain
    store.put(audit_bundle_name(1000), b"rubbish")
    consolidate(book)

    assert len(book.names().singles) == 2003


def test_what_is_no_chain_is_not_put_together(chain: Chain) -> None:
    store, book, _ = chain
    other = new_book()[1]
    grow(other, 1)
    sealed = book.seal(audit_name(7), book.single(9).to_bytes())
    store.objects[audit_name(7)] = sealed
    with pytest.raises(AuditBroken):
        consolidate(book)
    assert book.names().bundles == set()
    assert len(book.names().singles) == 2003


def test_a_gap_is_not_put_together(chain: Chain) -> None:
    store, book, _ = chain
    store.delete(audit_name(500))
    consolidate(book)

    assert book.names().bundles == {2000}
    assert len(book.names().singles) == 2002


def test_a_number_far_away_is_no_reason_to_look_at_all_before_it(chain: Chain) -> None:
    store, book, _ = chain
    store.put(audit_name(10**12 - 1), b"hostile")

    consolidate(book)

    assert book.names().bundles == {1000, 2000}
