"""The right stretch of a log is replayed, or it is said why none leads to that moment."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from kryonix_backup.errors import TimeUnreachable
from kryonix_backup.model import ChainId, LogHeader, SourceName
from kryonix_backup.repository.log import LogBook
from kryonix_backup.restore.log_range import LogRange, find_range, leads_to
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.repositories import new_repository

CHAIN = ChainId("20261123t120000z-0123456789abcdef")
LATER = ChainId("20261124t120000z-0123456789abcdef")
SEGMENTS = 9


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def _position(at: int, log: str = "7/8") -> dict[str, Any]:
    return {"log": log, "at": at, "time": NOON.isoformat()}


def _fill(
    book: LogBook, chain: ChainId = CHAIN, broken: int = 0, beatless: tuple[int, ...] = ()
) -> LogBook:
    """Segment n holds what came from 100 n to 100 n + 100, in the seconds 10 n to 10 n + 9."""
    book.append(LogHeader(chain, 0, 100, 100, None, None, None, 0, 0, meta={"log": "7/8"}), b"")
    for number in range(1, SEGMENTS + 1):
        last = _at(10 * number + 9)
        header = LogHeader(
            chain, number, 100 * number, 100 * number + 100, _at(10 * number), last,
            None if number in beatless else last, 2, 5, "it rewrote t" if number == broken else "",
        )  # fmt: skip
        book.append(header, b"")
    return book


def _book(broken: int = 0, beatless: tuple[int, ...] = ()) -> LogBook:
    return _fill(new_repository().log(SourceName("db")), broken=broken, beatless=beatless)


BOOK = _book()


@given(at=integers(100, 999), seconds=integers(10, 99))
def test_the_range_begins_after_the_snapshot_and_ends_where_the_moment_is_known(
    at: int, seconds: int
) -> None:
    found = find_range(BOOK, _position(at), _at(seconds))

    first = at // 100
    last = max(first, seconds // 10)
    assert (found.first, found.last, found.chain) == (first, last, CHAIN)
    assert found.until == _at(seconds)
    assert (found.commits, found.changes) == (2 * (last - first + 1), 5 * (last - first + 1))


def test_a_moment_between_two_segments_needs_the_second() -> None:
    assert find_range(BOOK, _position(100), _at(19.5)).last == 2
    assert find_range(BOOK, _position(100), _at(19)).last == 1


def test_a_segment_without_a_beat_is_followed_by_the_next() -> None:
    assert find_range(_book(beatless=(3, 4)), _position(100), _at(33)).last == 5


def test_how_far_the_log_goes_on_is_known_without_reading_it() -> None:
    assert leads_to(BOOK, _position(100)) == _at(10 * SEGMENTS + 9)
    assert leads_to(BOOK, _position(100, log="7/9")) is None
    assert leads_to(BOOK, {**_position(100), "time": _at(99).isoformat()}) is None


def test_a_log_that_ends_earlier_says_how_far_it_leads() -> None:
    with pytest.raises(TimeUnreachable, match="it ends at 2026-11-23T12:01:39") as caught:
        find_range(BOOK, _position(100), _at(100))
    assert "--kind log" in caught.value.hint

    with pytest.raises(TimeUnreachable, match="does not reach"):
        find_range(_book(beatless=(8, 9)), _position(100), _at(85))


def test_what_cannot_be_replayed_stops_at_its_segment() -> None:
    book = _book(broken=5)

    assert find_range(book, _position(100), _at(49)).last == 4
    with pytest.raises(TimeUnreachable, match="it rewrote t"):
        find_range(book, _position(100), _at(50))
    with pytest.raises(TimeUnreachable, match="it rewrote t"):
        find_range(book, _position(100), _at(70))
    assert find_range(book, _position(600), _at(70)).first == 6  # a snapshot after it


def _with_break(start: int | None, end: int) -> LogBook:
    """Segment 5 holds something that cannot be replayed, first committed at second 54."""
    book = new_repository().log(SourceName("db"))
    book.append(LogHeader(CHAIN, 0, 100, 100, None, None, None, 0, 0, meta={"log": "7/8"}), b"")
    meta = {"broken_at": _at(54).isoformat(), "broken_to": end}
    for number in range(1, SEGMENTS + 1):
        last = _at(10 * number + 9)
        header = LogHeader(
            CHAIN, number, 100 * number, 100 * number + 100, _at(10 * number), last, last, 2, 5
        )
        if number == 5:
            begun = {} if start is None else {"broken_from": start}
            header = header._replace(broken="it rewrote t", meta={**meta, **begun})
        book.append(header, b"")
    return book


def test_the_last_moment_before_it_can_still_be_had() -> None:
    book = _with_break(540, 560)

    assert find_range(book, _position(100), _at(53)).last == 5
    with pytest.raises(TimeUnreachable, match="it rewrote t"):
        find_range(book, _position(100), _at(54))


def test_a_full_backup_made_since_leads_on_at_once() -> None:
    book = _with_break(540, 560)

    assert find_range(book, _position(561), _at(57)).last == 5
    assert find_range(book, _position(561), _at(70)).last == 7
    for at in (540, 550, 560):  # made before it, or between the first and the last
        with pytest.raises(TimeUnreachable, match="it rewrote t"):
            find_range(book, _position(at), _at(57))


def test_what_began_nobody_knows_when_stops_every_moment_that_needs_it() -> None:
    with pytest.raises(TimeUnreachable, match="it rewrote t"):
        find_range(_with_break(None, 540), _position(100), _at(51))


@pytest.mark.parametrize("position", [_position(100, "7/9"), _position(99)])
def test_a_snapshot_that_no_chain_goes_on_from_is_told(position: dict[str, Any]) -> None:
    with pytest.raises(TimeUnreachable, match="no log of db goes on from the snapshot"):
        find_range(BOOK, position, _at(30))


def test_without_a_log_there_is_no_range() -> None:
    with pytest.raises(TimeUnreachable, match="no log of db"):
        find_range(new_repository().log(SourceName("db")), _position(100), _at(30))


def test_the_newest_chain_that_fits_is_taken() -> None:
    book = _fill(_book(), LATER)

    assert find_range(book, _position(150), _at(30)).chain == LATER


def test_a_range_comes_back_out_of_its_json() -> None:
    found = find_range(BOOK, _position(100), _at(33))

    assert LogRange.from_plain(json.loads(json.dumps(found.to_plain()))) == found


def test_a_moment_that_a_clock_has_shown_twice_is_refused() -> None:
    book = _book()
    twice = {"twice": [[_at(40).isoformat(), _at(99).isoformat()]]}
    header = LogHeader(CHAIN, SEGMENTS + 1, 1000, 1100, _at(40), _at(50), None, 2, 5, meta=twice)
    book.append(header, b"")
    book.append(
        header._replace(number=SEGMENTS + 2, start=1100, end=1200, restorable=_at(110)), b""
    )

    for seconds in (40, 70, 99):
        with pytest.raises(TimeUnreachable, match="was there twice: the clock of db's server"):
            find_range(book, _position(100), _at(seconds))
    assert find_range(book, _position(100), _at(39)).last == 3
    assert find_range(book, _position(100), _at(105)).last == SEGMENTS + 2
