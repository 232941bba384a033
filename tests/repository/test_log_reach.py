"""How far a log leads is what a restore finds, whatever in it is damaged or cannot be replayed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import booleans, composite, integers, lists, none, sampled_from

from kryonix_backup.errors import Damaged, FormatUnsupported, RepositoryError, TimeUnreachable
from kryonix_backup.model import ChainId, LogHeader, SourceName
from kryonix_backup.repository.log_reach import find_start, in_order, reach, stopped_from
from kryonix_backup.repository.restorable import Head, ReadLog
from kryonix_backup.restore.log_range import find_range
from kryonix_backup.testing.clock import NOON

DB = SourceName("db")
CHAIN = ChainId("20261123t120000z-0123456789abcdef")
LATER = ChainId("20261124t120000z-0123456789abcdef")
STEP = timedelta(microseconds=1)


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def _position(at: int) -> dict[str, Any]:
    return {"log": "7/8", "at": at, "time": NOON.isoformat()}


def _chain(count: int, chain: ChainId = CHAIN, start: int = 0) -> list[Head]:
    """Segment n holds what came from 10 n - 10 to 10 n, and all of it is known at second n."""
    opening = LogHeader(chain, 0, start, start, None, None, None, 0, 0, meta={"log": "7/8"})
    heads: list[Head] = [opening]
    return heads + [
        LogHeader(
            chain, number, start + 10 * number - 10, start + 10 * number, _at(number), _at(number),
            _at(number), 1, 1, meta={},
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


def _log(*chains: list[Head]) -> ReadLog:
    return ReadLog(DB, dict(zip((CHAIN, LATER), chains, strict=False)), {})


def _bad(number: int) -> RepositoryError:
    return Damaged(f"segment {number} was changed")


@pytest.mark.parametrize("at", range(0, 100, 5))
def test_a_damaged_head_hides_no_place_but_its_own(at: int) -> None:
    """Where the bisection meets it depends on the place; only a replay that needs it may fail."""
    for hurt in range(1, 11):
        heads = _chain(10)
        heads[hurt] = _bad(hurt)
        log = _log(heads)

        found = find_start(log, _position(at))

        assert found is not None
        assert (found.chain, found.first, found.segments) == (CHAIN, at // 10 + 1, 11)
        stopped = reach(log, _position(at))
        newer = at // 10 + 1 > hurt
        assert stopped.to == (_at(10) if newer else _at(hurt - 1) if at // 10 + 1 < hurt else None)
        assert stopped.because == ("" if newer else f"segment {hurt} was changed")


def test_several_damaged_heads_hide_no_place_either() -> None:
    heads = _chain(40)
    for hurt in (*range(5, 21), 30, 38, 39, 40):
        heads[hurt] = _bad(hurt)
    log = _log(heads)
    for place in range(37):
        found = find_start(log, _position(10 * place))
        assert found is not None
        sound = not isinstance(heads[place + 1], Damaged)
        assert found.first == place + 1 or (not sound and isinstance(heads[found.first], Damaged))


def test_a_damaged_opening_of_a_newer_chain_does_not_hide_an_older_one() -> None:
    later = _chain(3, LATER, 100)
    later[0] = FormatUnsupported("the opening has format 9")
    log = _log(_chain(10), later)

    found = find_start(log, _position(50))

    assert found is not None
    assert found.chain == CHAIN
    with pytest.raises(FormatUnsupported):  # this place is in the newer one alone
        find_start(log, _position(115))
    assert reach(log, _position(115)) == (None, None, "the opening has format 9")
    with pytest.raises(FormatUnsupported):
        find_start(_log([_bad(0)], later), _position(50))


def test_no_chain_goes_on_from_another_log_or_from_before_it() -> None:
    log = _log(_chain(3, start=100))

    for position in (_position(99), {**_position(100), "log": "7/9"}):
        assert find_start(log, position) is None
        assert reach(log, position) == (None, None, "")
    assert find_start(_log([]), _position(0)) is None


def test_segments_that_do_not_meet_are_not_replayed() -> None:
    heads = _chain(5)
    third = heads[3]
    assert isinstance(third, LogHeader)
    heads[3] = third._replace(start=25)
    log = _log(heads)

    assert reach(log, _position(0)).to == _at(2)
    assert "begins at 25, and the one before it ends at 20" in reach(log, _position(0)).because
    with pytest.raises(Damaged, match="begins at 25"):
        find_range(log, _position(0), _at(3))
    assert find_range(log, _position(30), _at(4)).first == 4
    assert list(in_order(iter(()))) == []


def test_nobody_looks_beyond_what_is_enough() -> None:
    heads = _chain(5)
    heads[4] = _bad(4)

    assert reach(_log(heads), _position(0), _at(3)) == (CHAIN, _at(3), "")


def test_what_cannot_be_replayed_stops_those_who_need_it() -> None:
    plain = LogHeader(CHAIN, 1, 0, 10, None, None, None, 0, 0)
    known = {"broken_from": 3, "broken_to": 5, "broken_at": _at(4).isoformat()}
    broken = plain._replace(broken="it rewrote t", meta=known)

    assert stopped_from(plain, 0) is None
    assert stopped_from(broken, 6) is None
    assert stopped_from(broken, 3) == _at(4)
    since = stopped_from(broken, 4)
    assert since is not None
    assert since < _at(-1e9)
    del known["broken_from"]
    assert stopped_from(broken, 0) == since


@composite
def _logs(draw: Any) -> ReadLog:
    heads = _chain(6)
    for number in range(1, 7):
        head = heads[number]
        assert isinstance(head, LogHeader)
        if draw(integers(0, 6)) == 0:
            heads[number] = _bad(number)
            continue
        known = draw(sampled_from([None, number, number - 1, number + 1]))
        head = head._replace(restorable=None if known is None else _at(known))
        if draw(integers(0, 4)) == 0:
            first = draw(none() | integers(10 * number - 10, 10 * number - 1))
            when = number - draw(sampled_from([0.5, 0.9, 2]))
            meta = {"broken_at": _at(when).isoformat(), "broken_to": 10 * number - 1}
            meta |= {} if first is None else {"broken_from": first}
            head = head._replace(broken="it rewrote t", meta=meta)
        heads[number] = head
    later = _chain(2, LATER, draw(sampled_from([20, 60, 70])))
    if draw(booleans()):
        later[0] = _bad(0)
    return _log(heads, later)


@settings(max_examples=60)
@given(log=_logs(), places=lists(integers(0, 75), min_size=1, max_size=3))
def test_a_restore_finds_every_moment_up_to_the_reach_and_none_after(
    log: ReadLog, places: list[int]
) -> None:
    for place in places:
        to = reach(log, _position(place)).to
        moments = {_at(each / 2) for each in range(0, 16, 3)}
        for moment in moments | ({to, to + STEP} if to else set()):
            try:
                find_range(log, _position(place), moment)
                found = True
            except (TimeUnreachable, RepositoryError):
                found = False
            assert found == (to is not None and moment <= to), (place, moment, to)
