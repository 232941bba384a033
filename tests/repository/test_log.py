"""A segment opens only as itself, its head alone too; a chain ends where a number is missing."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from typing import Any

import pytest

from kryonix_backup.errors import AlreadyRunning, Damaged, KryonixError, ObjectMissing
from kryonix_backup.model import MIB, ChainId, LogHeader, SourceName, TenantId
from kryonix_backup.repository.log import LogBook, Spill, fetched_ahead, last_header
from kryonix_backup.repository.repository import Repository
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened

DB, OTHER = SourceName("db"), SourceName("other")
CHAIN = ChainId("20261123t120000z-0123456789abcdef")
LATER = ChainId("20261124t120000z-0123456789abcdef")
NAME = f"logs/db/{CHAIN}/00000001"


def _header(number: int = 1, chain: ChainId = CHAIN, **changed: Any) -> LogHeader:
    header = LogHeader(
        chain, number, 100, 200, NOON, NOON + timedelta(seconds=2), None, 2, 30,
        "it rewrote the rows", {"log": "7/8", "list": [1, None]},
    )  # fmt: skip
    return header._replace(**changed)


def _book() -> tuple[RecordingStore, Repository, LogBook]:
    store = RecordingStore()
    repository = new_repository(store)
    return store, repository, repository.log(DB)


def _body(book: LogBook, chain: ChainId = CHAIN, number: int = 1) -> bytes:
    return b"".join(bytes(piece) for piece in book.segment(chain, number)[1])


def test_a_segment_comes_back_as_it_was() -> None:
    store, _, book = _book()
    book.append(_header(), b"frames" * 1000)

    again = reopened(store).log(DB)
    assert again.header(CHAIN, 1) == _header()
    assert again.segment(CHAIN, 1)[0] == _header()
    assert _body(again) == b"frames" * 1000
    assert store.puts[-1] == NAME
    assert b"frames" not in store.objects[NAME]
    assert b"rewrote" not in store.objects[NAME]


def test_an_opening_segment_may_be_empty() -> None:
    _, _, book = _book()
    book.append(_header(0, first=None, last=None), b"")

    assert _body(book, number=0) == b""
    assert book.header(CHAIN, 0).first is None


def test_a_head_opens_without_its_body() -> None:
    store, _, book = _book()
    book.append(_header(meta={"text": "x" * 10_000}), random.Random(1).randbytes(MIB))
    whole = store.objects[NAME]
    store.objects[NAME] = whole[:20_000]

    assert book.header(CHAIN, 1).meta == {"text": "x" * 10_000}
    with pytest.raises(Damaged):
        book.segment(CHAIN, 1)[1].__next__()


def test_every_byte_of_a_segment_counts() -> None:
    store, _, book = _book()
    book.append(_header(), b"frames")
    whole = store.objects[NAME]
    for at in range(len(whole)):
        store.objects[NAME] = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(KryonixError) as caught:
            _body(book)
        assert caught.value.exit_code // 10 == 5, at  # a RepositoryError
    for length in range(len(whole)):
        store.objects[NAME] = whole[:length]
        with pytest.raises(Damaged):
            _body(book)
    store.objects[NAME] = whole + b"\0"
    with pytest.raises(Damaged):
        _body(book)


@pytest.mark.parametrize(
    ("source", "chain", "number"), [(OTHER, CHAIN, 1), (DB, LATER, 1), (DB, CHAIN, 2)]
)
def test_a_segment_does_not_open_under_another_name(
    source: SourceName, chain: ChainId, number: int
) -> None:
    store, repository, book = _book()
    book.append(_header(), b"frames")
    store.objects[f"logs/{source}/{chain}/{number:08d}"] = store.objects[NAME]

    with pytest.raises(Damaged, match="changed, moved or cut"):
        repository.log(source).header(chain, number)
    with pytest.raises(Damaged, match="changed, moved or cut"):
        repository.log(source).segment(chain, number)


def test_a_segment_does_not_open_for_another_tenant() -> None:
    _, _, book = _book()
    book.append(_header(), b"frames")
    store = RecordingStore()
    theirs = new_repository(store, TenantId("globex")).log(DB)
    assert isinstance(book.store, RecordingStore)
    store.objects[NAME] = book.store.objects[NAME]

    with pytest.raises(KryonixError):
        theirs.header(CHAIN, 1)


def test_an_object_of_another_kind_is_no_segment() -> None:
    store, repository, book = _book()
    with repository.writer() as writer:
        writer.lane("zstd:3").keep([b"chunk"])
    (index,) = store.names("index/")
    store.objects[NAME] = store.objects[index]

    with pytest.raises(Damaged, match=r"not a segment of a log|cut short"):
        book.header(CHAIN, 1)


def test_a_body_kept_as_chunks_comes_back() -> None:
    store, repository, book = _book()
    body = random.Random(2).randbytes(5 * MIB + 17)
    with repository.writer() as writer:
        spill = Spill(writer)
        for start in range(0, len(body), 2 * MIB + 3):
            spill.add(body[start : start + 2 * MIB + 3])
    book.append(_header(), b"", spill.close())

    again = reopened(store).log(DB)
    assert again.header(CHAIN, 1) == _header()
    assert _body(again) == body
    assert len(store.objects[NAME]) < 4096


def test_a_number_is_taken_only_once() -> None:
    store, _, book = _book()
    book.append(_header(), b"ours")

    with pytest.raises(AlreadyRunning, match="another process follows the log of db"):
        reopened(store).log(DB).append(_header(), b"theirs")
    assert _body(book) == b"ours"


def test_a_chain_counts_up_to_the_first_missing_number() -> None:
    store, _, book = _book()
    assert book.chains() == {}
    assert last_header(book) is None
    for number in (0, 1, 3):
        book.append(_header(number), b"")
    book.append(_header(1, LATER), b"")
    store.objects[f"logs/db/{CHAIN}/00000002.part"] = b""
    store.objects["logs/db/nothing/00000000"] = b""

    assert book.chains() == {CHAIN: 2, LATER: 0}
    assert list(book.chains()) == [CHAIN, LATER]
    assert last_header(book) == (_header(0), _header(1))  # nothing leads to the later one
    book.append(_header(0, LATER), b"")
    assert last_header(book) == (_header(0, LATER), _header(1, LATER))
    with pytest.raises(ObjectMissing):
        book.header(CHAIN, 2)


def test_what_is_fetched_ahead_comes_in_order() -> None:
    assert list(fetched_ahead(range(20), lambda number: number * 2)) == list(range(0, 40, 2))
    assert list(fetched_ahead([], str)) == []


def test_what_is_given_up_half_way_waits_for_no_thread() -> None:
    held = threading.Event()

    def fetch(number: int) -> int:
        if number:
            held.wait(60)
        return number

    iterator = fetched_ahead(range(9), fetch)
    assert next(iterator) == 0
    iterator.close()
    assert not held.is_set()
    held.set()
