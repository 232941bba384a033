"""Appending to the audit chain: alone, at once, after a crash, and after an attack."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kryonix_backup.errors import (
    AuditBroken,
    Damaged,
    ObjectMissing,
    RolledBack,
    StoreDenied,
    StoreUnavailable,
)
from kryonix_backup.model import TenantId
from kryonix_backup.repository.audit import AuditBook
from kryonix_backup.repository.audit_record import BUNDLED, Head
from kryonix_backup.repository.layout import audit_name
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.testing.faults import AnswerLost, FaultyStore
from kryonix_backup.testing.repositories import new_repository, reopened
from tests.repository.audited import deed, grow, new_book


def is_whole(book: AuditBook, count: int) -> bool:
    """Whether there are records 1 to count, each following the one before it."""
    before = book.start
    for sequence in range(1, count + 1):
        signed = book.read(sequence)
        record = signed.record()
        assert (record.sequence, record.previous) == (sequence, before.hash)
        assert signed.is_signed_by(book.trusted)
        before = Head(sequence, signed.hash)
    return book.head() == before


def test_records_follow_each_other() -> None:
    store, book = new_book()
    assert book.head() == book.start
    head = grow(book, 5)

    assert head.sequence == 5
    assert store.names("audit/") == [audit_name(each) for each in range(1, 6)]
    assert is_whole(book, 5)
    assert is_whole(reopened(store).audit(), 5)


def test_an_old_head_is_read_on_from() -> None:
    _, book = new_book()
    early = grow(book, 2)
    grow(book, 30)

    assert book.append(deed(), early).sequence == 33
    assert is_whole(book, 33)


def test_a_chain_belongs_to_its_tenant_and_repository() -> None:
    _, one = new_book()
    _, two = new_book()

    assert one.start != two.start
    assert one.signer.public != two.signer.public


def test_what_is_stored_says_nothing() -> None:
    store, book = new_book()
    grow(book, 1)
    body = store.objects[audit_name(1)]

    for word in (b"ana", b"backup", b"ticket", b"host-1"):
        assert word not in body


def test_threads_that_append_at_once_lose_nothing() -> None:
    _, book = new_book()
    with ThreadPoolExecutor(8) as pool:
        heads = list(pool.map(lambda _: grow(book, 10), range(8)))

    assert max(head.sequence for head in heads) == 80
    assert is_whole(book, 80)


def _append_many(root: str) -> None:
    grow(reopened(FilesystemStore(Path(root))).audit(), 25)


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    new_repository(store)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(str(tmp_path),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [worker.exitcode for worker in workers] == [0, 0]
    assert is_whole(reopened(store).audit(), 50)


@pytest.mark.parametrize("lost", [False, True], ids=["before", "after"])
def test_an_append_that_was_killed_is_gone_on_from(lost: bool) -> None:
    store, book = new_book()
    seen = grow(book, 3)
    error = StoreUnavailable("gone")
    faulty = FaultyStore(store, put=[AnswerLost(error) if lost else error])
    with pytest.raises(StoreUnavailable):
        reopened(faulty).audit().append(deed(), seen)

    count = 5 if lost else 4
    assert book.append(deed(), seen).sequence == count
    assert is_whole(book, count)


def test_a_store_that_is_not_to_be_written_says_so() -> None:
    store, _ = new_book()
    with pytest.raises(StoreDenied):
        reopened(FaultyStore(store, put=[StoreDenied("no")])).audit().append(deed(), None)


def test_a_tail_that_was_removed_is_noticed_where_it_was_seen() -> None:
    store, book = new_book()
    seen = grow(book, 9)
    for sequence in (8, 9):
        store.delete(audit_name(sequence))

    with pytest.raises(RolledBack, match="records 8 to 9"):
        book.append(deed(), seen)
    assert book.append(deed(), None).sequence == 8, "without having seen it nobody can know"


def test_everything_that_was_removed_is_noticed_where_it_was_seen() -> None:
    store, book = new_book()
    seen = grow(book, 3)
    for sequence in (1, 2, 3):
        store.delete(audit_name(sequence))

    with pytest.raises(RolledBack, match="records 1 to 3"):
        book.append(deed(), seen)


def test_an_older_state_that_was_written_to_is_noticed() -> None:
    store, book = new_book()
    grow(book, 3)
    older = store.copy()
    seen = grow(book, 3)
    store.objects = older.objects
    book.append(deed("other"), None)
    grow(book, 5)

    with pytest.raises(RolledBack, match="set back, and written to"):
        book.append(deed(), seen)


def test_a_head_that_was_changed_is_not_followed() -> None:
    store, book = new_book()
    seen = grow(book, 3)
    store.objects[audit_name(3)] = store.objects[audit_name(2)]

    for known in (seen, None):
        with pytest.raises(AuditBroken, match="record 3"):
            book.append(deed(), known)


def test_what_is_in_the_way_of_the_next_record_is_not_followed() -> None:
    store, book = new_book()
    seen = grow(book, 3)
    store.objects[audit_name(4)] = store.objects[audit_name(2)]
    with pytest.raises(AuditBroken, match="record 4"):
        book.append(deed(), seen)


def test_a_record_of_another_tenant_does_not_open() -> None:
    store, book = new_book()
    other_store, other = new_book(TenantId("other"))
    grow(book, 2)
    grow(other, 2)
    store.objects[audit_name(2)] = other_store.objects[audit_name(2)]
    with pytest.raises(Damaged):
        book.single(2)


def test_a_seen_record_that_is_missing_in_the_middle_is_told() -> None:
    store, book = new_book()
    seen = grow(book, 3)
    grow(book, 3)
    store.delete(audit_name(3))
    with pytest.raises(AuditBroken, match="record 3 at memory"):
        book.append(deed(), seen)
    with pytest.raises(ObjectMissing):
        book.read(3)


def test_a_loss_that_was_accepted_is_gone_on_from_on_every_machine() -> None:
    store, book = new_book()
    early = grow(book, 7)
    seen = grow(book, 2)
    for sequence in (6, 7, 8, 9):
        store.delete(audit_name(sequence))
    head = book.accept(deed("audit accept", accepts=((6, 9),)), seen)

    assert head.sequence == 10
    assert book.append(deed(), head).sequence == 11
    assert book.append(deed(), early).sequence == 12, "who saw a lost record learns of it"


def test_a_damaged_end_that_was_accepted_is_gone_on_from() -> None:
    store, book = new_book()
    grow(book, 4)
    store.objects[audit_name(4)] = b"rubbish"
    head = book.accept(deed("audit accept", accepts=((4, 4),)), None)

    assert head.sequence == 5
    assert book.read(5).record().previous == book.read(3).hash
    assert book.append(deed(), head).sequence == 6


def test_names_that_are_no_records_are_told_apart() -> None:
    store, book = new_book()
    grow(book, 2)
    for name in ("audit/1", "audit/000000000000", "audit/bundles/000000000007", "audit/x"):
        store.put(name, b"")
    names = book.names()

    assert (names.singles, names.bundles) == ({1, 2}, set())
    assert len(names.strays) == 4
    assert names.first_after(1) == 2
    assert names.first_after(2) == 0
    assert names._replace(bundles={BUNDLED}).first_after(2) == 3


def test_a_number_that_no_chain_comes_to_is_told_and_not_gone_on_from() -> None:
    store, book = new_book()
    seen = grow(book, 3)
    store.put(audit_name(10**12 - 1), b"hostile")

    with pytest.raises(AuditBroken, match="999999999999"):
        book.append(deed(), None)
    with pytest.raises(AuditBroken, match="audit/999999999999") as caught:
        book.accept(deed("audit accept"), seen)
    assert "Remove that object" in caught.value.hint
    store.delete(audit_name(10**12 - 1))
    store.put(audit_name(5 * 10**9), b"hostile")
    head = book.accept(deed("audit accept", accepts=((4, 5 * 10**9),)), seen)

    assert head.sequence == 5 * 10**9 + 1
    assert book.read(head.sequence).record().previous == seen.hash
