"""Which moments can be restored follows from snapshots and log together, newest snapshot first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from kryonix_backup.errors import Damaged
from kryonix_backup.model import ChainId, LogHeader, SnapshotId, SourceName
from kryonix_backup.repository.log_reach import reach
from kryonix_backup.repository.restorable import (
    Base,
    Gap,
    Head,
    Range,
    ReadLog,
    Restorable,
    bases_of,
    moments_of,
    read_log,
    restorable,
)
from kryonix_backup.testing.clock import NOON
from tests.maintenance.logs import CRM, Logged, logged

DB = SourceName("db")
CHAIN = ChainId("20261123t120000z-0123456789abcdef")
LATER = ChainId("20261124t120000z-0123456789abcdef")
STEP = timedelta(microseconds=1)


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def _chain(first: int, last: int, chain: ChainId = CHAIN, **meta: Any) -> list[Head]:
    """A segment for each second, which holds ten places."""
    opening = LogHeader(
        chain, 0, 10 * first, 10 * first, None, None, None, 0, 0, meta={"log": "7/8", **meta}
    )
    heads: list[Head] = [opening]
    return heads + [
        LogHeader(
            chain, number - first, 10 * number - 10, 10 * number, _at(number), _at(number),
            _at(number), 1, 1, meta={},
        )
        for number in range(first + 1, last + 1)
    ]  # fmt: skip


def _log(*chains: list[Head], beyond: dict[ChainId, int] | None = None) -> ReadLog:
    return ReadLog(DB, dict(zip((CHAIN, LATER), chains, strict=False)), beyond or {})


def _base(second: float, *, log: str = "7/8") -> Base:
    """A snapshot at that second, which stands at its place."""
    position = {"log": log, "at": int(second * 10), "time": _at(second).isoformat()}
    return Base(SnapshotId(f"snapshot-{second}"), _at(second), position)


def _ranges(found: Restorable) -> list[tuple[datetime, datetime]]:
    return [(each.start, each.end) for each in found.ranges]


def test_one_backup_and_its_log_are_one_range() -> None:
    found = restorable(_log(_chain(0, 9)), [_base(2)])

    assert found == Restorable(DB, (Range(CHAIN, _at(2), _at(9)),), ())
    assert not found.needs_full
    assert found.holds(_at(2)) and found.holds(_at(9)) and not found.holds(_at(9) + STEP)  # noqa: PT018


def test_backups_of_one_chain_make_one_range() -> None:
    assert _ranges(restorable(_log(_chain(0, 9)), [_base(2), _base(5), _base(8)])) == [
        (_at(2), _at(9))
    ]


def test_a_log_that_has_not_come_to_the_newest_backup_is_no_gap() -> None:
    found = restorable(_log(_chain(0, 9)), [_base(2), _base(12)])

    assert _ranges(found) == [(_at(2), _at(9))]
    assert found.gaps == ()


def test_a_chain_that_broke_leaves_a_gap_with_its_reason() -> None:
    lost = _chain(20, 29, LATER, gap_from=_at(9).isoformat(), reason="the slot is gone")
    log = _log(_chain(0, 9), lost)

    found = restorable(log, [_base(2)])
    again = restorable(log, [_base(2), _base(22)])

    assert found.gaps == (Gap(_at(9), None, "the slot is gone"),)
    assert found.needs_full
    assert _ranges(again) == [(_at(2), _at(9)), (_at(22), _at(29))]
    assert [each.chain for each in again.ranges] == [CHAIN, LATER]
    assert again.gaps == (Gap(_at(9), _at(22), "the slot is gone"),)
    assert not again.needs_full


def test_a_new_chain_without_a_reason_is_a_gap_too() -> None:
    log = _log(_chain(0, 9), _chain(20, 29, LATER))
    unread = _log(_chain(0, 9), [Damaged("it was changed")])

    assert restorable(log, [_base(2)]).gaps == (Gap(_at(9), None, "a new chain began"),)
    assert restorable(unread, [_base(2)]).gaps[0].reason.endswith("read: it was changed")


def test_what_cannot_be_replayed_is_a_gap_until_the_next_backup() -> None:
    heads = _chain(0, 9)
    fifth = heads[5]
    assert isinstance(fifth, LogHeader)
    meta = {"broken_from": 43, "broken_to": 45, "broken_at": _at(4.5).isoformat()}
    heads[5] = fifth._replace(broken="it rewrote t", meta=meta)

    (gap,) = restorable(_log(heads), [_base(2), _base(7)]).gaps
    trailing = restorable(_log(heads), [_base(2)])

    assert gap == Gap(_at(4.5) - STEP, _at(7), "it rewrote t")
    assert trailing.gaps == (Gap(_at(4.5) - STEP, None, "it rewrote t"),)
    assert _ranges(trailing) == [(_at(2), _at(4.5) - STEP)]


def test_a_missing_segment_names_itself() -> None:
    found = restorable(_log(_chain(0, 4), beyond={CHAIN: 5}), [_base(2)])
    opening = restorable(_log([], beyond={CHAIN: 0}), [_base(2)])

    assert found.gaps == (Gap(_at(4), None, f"logs/db/{CHAIN}/00000005 is missing"),)
    assert opening.gaps == (Gap(_at(2), None, f"logs/db/{CHAIN}/00000000 is missing"),)


def test_a_segment_whose_body_is_lost_ends_what_needs_it() -> None:
    log = _log(_chain(0, 9))
    log.lost[CHAIN, 5] = Damaged("segment 5 was changed")
    log.lost[CHAIN, 0] = Damaged("the opening was changed")  # which is empty, and never replayed

    found = restorable(log, [_base(2), _base(7)])

    assert _ranges(found) == [(_at(2), _at(4)), (_at(7), _at(9))]
    assert found.gaps == (Gap(_at(4), _at(7), "segment 5 was changed"),)


def test_a_backup_that_cannot_be_read_stands_before_older_ones() -> None:
    bases = [_base(2), _base(5)]

    found = restorable(_log(_chain(0, 9)), bases, {bases[1].snapshot})

    assert _ranges(found) == [(_at(2), _at(5) - STEP)]
    assert found.gaps == (Gap(_at(5) - STEP, None, "snapshot snapshot-5 is damaged"),)


def test_backups_without_a_log_or_of_another_lead_nowhere() -> None:
    bare = Base(SnapshotId("bare"), _at(1), {})

    found = restorable(_log(_chain(0, 9)), [bare, _base(3), _base(6, log="7/9")])

    assert _ranges(found) == [(_at(3), _at(6) - STEP)]
    assert found.gaps == (
        Gap(_at(1), _at(3), "snapshot bare was made without a log"),
        Gap(_at(6) - STEP, None, "no chain of the log goes on from it"),
    )


def test_a_clock_set_back_prefers_the_newer_backup() -> None:
    """Ids are in the order of backups; the newer one is taken for every moment it can serve."""
    found = restorable(_log(_chain(0, 9)), [_base(6), _base(3)])

    assert _ranges(found) == [(_at(3), _at(9))]


def test_without_a_backup_nothing_can_be_restored() -> None:
    assert restorable(_log(_chain(0, 9)), []).gaps == (
        Gap(None, None, "no snapshot leads into the log"),
    )
    assert restorable(_log([]), []).gaps == ()


def test_moments_can_be_said_as_json() -> None:
    plain = restorable(_log(_chain(0, 4), beyond={CHAIN: 5}), [_base(2)]).to_plain()

    assert plain == {
        "ranges": [{"chain": CHAIN, "from": _at(2).isoformat(), "to": _at(4).isoformat()}],
        "gaps": [
            {"from": _at(4).isoformat(), "to": None,
             "reason": f"logs/db/{CHAIN}/00000005 is missing"},
        ],
        "needs_full": True,
    }  # fmt: skip


def test_a_repository_says_it_of_every_source_with_a_log() -> None:
    made = logged()

    found = moments_of(made.again())

    assert list(found) == [CRM, DB]
    assert _ranges(found[DB]) == [(_at(0), _at(60))]
    assert _ranges(found[CRM]) == [(_at(0), _at(50))]
    assert moments_of(Logged.new().again()) == {}
    assert [base.time for base in bases_of(DB, made.again().snapshots())] == [_at(0), _at(25)]


def test_heads_that_do_not_open_are_kept_as_what_they_raised() -> None:
    made = logged()
    (chain,) = made.again().log(DB).chains()
    made.store.objects[f"logs/db/{chain}/00000002"] = b""

    log = read_log(DB, {chain: {0, 1, 2, 4}}, made.again().log(DB).header)

    assert log.chains() == {chain: 3}
    assert log.beyond == {chain: 3}
    assert isinstance(log.heads[chain][2], Damaged)
    position = {"log": "7/8", "at": 0, "time": NOON.isoformat()}
    assert "cut short" in reach(log, position).because


def test_times_that_a_clock_has_shown_twice_are_a_gap() -> None:
    heads = _chain(0, 9)
    newest = heads[9]
    assert isinstance(newest, LogHeader)
    told = {"twice": [[_at(3).isoformat(), _at(4).isoformat()], [_at(8).isoformat()] * 2]}
    heads[9] = newest._replace(meta=told)

    found = restorable(_log(heads), [_base(2), _base(3.5)])

    assert _ranges(found) == [
        (_at(2), _at(3) - STEP), (_at(4) + STEP, _at(8) - STEP), (_at(8) + STEP, _at(9)),
    ]  # fmt: skip
    reason = "the clock of its server was set back: these times came twice"
    assert found.gaps == (
        Gap(_at(3) - STEP, _at(4) + STEP, reason), Gap(_at(8) - STEP, _at(8) + STEP, reason),
    )  # fmt: skip
    assert not found.needs_full


def test_times_that_come_twice_before_the_first_backup_or_at_the_end() -> None:
    heads = _chain(0, 9)
    heads[9] = Damaged("it was changed")
    eighth = heads[8]
    assert isinstance(eighth, LogHeader)
    told = {
        "twice": [
            [_at(0).isoformat(), _at(3).isoformat()],
            [_at(7).isoformat(), _at(10).isoformat()],
        ]
    }
    heads[8] = eighth._replace(meta=told)

    found = restorable(_log(heads), [_base(2)])

    assert _ranges(found) == [(_at(3) + STEP, _at(7) - STEP)]
    assert [(gap.start, gap.end) for gap in found.gaps] == [
        (_at(2) - STEP, _at(3) + STEP), (_at(7) - STEP, _at(10) + STEP), (_at(8), None),
    ]  # fmt: skip
