"""Names, ids, and the order of entries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis.strategies import binary, datetimes, from_regex, lists, text, timezones

from kryonix_backup.errors import InvalidName
from kryonix_backup.model import (
    Entry,
    EntryKind,
    Phase,
    check_name,
    is_run_id,
    moment_of,
    new_run_id,
    sort_key,
    tenant_id,
)

names = binary(min_size=1, max_size=6).filter(lambda name: not {b"/"[0], 0} & set(name))
paths = lists(names, min_size=1, max_size=4)

# hypothesis adds the zone itself
FIRST, LAST = datetime(2000, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001


@given(from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True))
def test_a_dns_label_is_a_name(name: str) -> None:
    assert check_name(name, "tenant id") == name


@pytest.mark.parametrize(
    "name",
    ["", "../x", "a/b", "a" * 41, "a" * 300, "-a", "a-", "1a", "A", "ä", "a_b", "a b", "a\n", "٣",
     "'; drop table tenants; --", "a\0", "."],
)  # fmt: skip
def test_a_hostile_name_is_refused_and_shown_safely(name: str) -> None:
    with pytest.raises(InvalidName) as raised:
        tenant_id(name)

    assert str(raised.value).isascii()
    assert len(str(raised.value)) < 120
    assert "\n" not in str(raised.value)


@given(text())
def test_any_text_is_a_name_or_refused(name: str) -> None:
    try:
        passed = check_name(name, "source")
    except InvalidName:
        return
    assert PurePosixPath("/tenants", passed).parent == PurePosixPath("/tenants")


@given(lists(paths, max_size=20))
def test_everything_in_a_directory_follows_it_at_once(trees: list[list[bytes]]) -> None:
    every = {b"/".join(names[: depth + 1]) for names in trees for depth in range(len(names))}
    ordered = sorted(every, key=sort_key)

    for place, path in enumerate(ordered):
        below = [other for other in ordered if other.startswith(path + b"/")]
        assert ordered[place + 1 : place + 1 + len(below)] == below


@given(datetimes(FIRST, LAST, timezones=timezones()))
def test_a_run_id_holds_its_moment_in_utc(moment: datetime) -> None:
    run = new_run_id(moment)

    assert is_run_id(run)
    assert moment_of(run) == moment.astimezone(UTC)


def test_run_ids_sort_by_time_within_a_second_and_across_zones() -> None:
    start = datetime(2026, 11, 23, 12, tzinfo=timezone(timedelta(hours=-3)))
    moments = [start + timedelta(microseconds=step) for step in (0, 1, 999_999, 1_000_000)]

    runs = [new_run_id(moment) for moment in moments]

    assert runs == sorted(runs)
    assert len({new_run_id(start) for _ in range(100)}) == 100


@pytest.mark.parametrize("value", ["", "latest", "20261123t214005z", "../20261123t214005z-0"])
def test_other_text_is_no_run_id(value: str) -> None:
    assert not is_run_id(value)


def test_an_entry_is_shown_to_people_whatever_its_name() -> None:
    assert Entry(b"caf\xe9/\xc3\xa4", EntryKind.FILE, 0).text == "caf\\xe9/ä"


def test_phases_have_the_names_that_operators_know() -> None:
    assert [phase.label for phase in Phase][:2] == [
        "infrastructure_preparation",
        "database_restore",
    ]
    assert list(Phase) == sorted(Phase)
