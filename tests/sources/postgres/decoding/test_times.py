"""A time that a clock has shown twice is known as such."""

from __future__ import annotations

import pytest

from kryonix_backup.sources.postgres.decoding.times import CommitTimes, moment

S = 1_000_000


def _of(*seconds: float) -> CommitTimes:
    times = CommitTimes(None, ())
    for each in seconds:
        times.add(round(each * S))
    return times


def _told(*pairs: tuple[float, float]) -> list[list[str]]:
    return [[moment(round(each * S)).isoformat() for each in pair] for pair in pairs]


@pytest.mark.parametrize(
    ("seconds", "pairs"),
    [
        ((), ()),
        ((1, 2, 3), ()),
        ((10, 9, 8.1, 11), ()),
        ((10, 5, 6, 7), ((5, 10),)),
        ((10, 5, 6, 2, 11), ((2, 10),)),
        ((10, 5, 12, 20, 13), ((5, 10), (13, 20))),
        ((10, 5, 12, 4), ((5, 10), (4, 12))),
    ],
)
def test_times_that_were_there_twice_are_told(
    seconds: tuple[float, ...], pairs: tuple[tuple[float, float], ...]
) -> None:
    assert _of(*seconds).told() == _told(*pairs)


def test_both_ends_were_there_twice() -> None:
    times = _of(10, 5, 11)

    found = [each for each in range(13) if times.was_twice(each * S)]
    assert found == [5, 6, 7, 8, 9, 10]


def test_it_goes_on_from_one_segment_to_the_next() -> None:
    before = _of(100, 40)

    after = CommitTimes(moment(40 * S), before.told())
    after.add(30 * S)
    assert after.told() == _told((30, 100))
    assert not CommitTimes(moment(40 * S), ()).told()
