"""Words become values, or a usage error says what they should look like."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import click
import pytest

from kryonix_backup.cli.options import MOMENT, NAME_URL, connected, named_regions
from kryonix_backup.errors import InvalidName, TenantUnknown


@pytest.mark.parametrize(
    ("text", "pair"),
    [("files=files:///srv", ("files", "files:///srv")),
     ("primary=s3://b?endpoint=http://h:1", ("primary", "s3://b?endpoint=http://h:1"))],
)  # fmt: skip
def test_a_name_ends_at_the_first_equals_sign(text: str, pair: tuple[str, str]) -> None:
    assert NAME_URL.convert(text, None, None) == pair
    assert NAME_URL.convert(pair, None, None) == pair


@pytest.mark.parametrize("text", ["files", "=x", "files=", ""])
def test_half_a_pair_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="NAME=URL"):
        NAME_URL.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T21:40:05Z", datetime(2026, 11, 23, 21, 40, 5, tzinfo=UTC)),
        ("2026-11-23T21:40:05", datetime(2026, 11, 23, 21, 40, 5, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-23 18:40-03:00", datetime(2026, 11, 23, 21, 40, tzinfo=UTC)),
    ],
)
def test_a_time_without_a_zone_is_in_utc(text: str, moment: datetime) -> None:
    assert MOMENT.convert(text, None, None) == moment


def test_a_time_keeps_its_zone_and_another_word_is_refused() -> None:
    there = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3)))

    assert MOMENT.convert(there, None, None) is there
    with pytest.raises(click.BadParameter, match="not a time"):
        MOMENT.convert("yesterday", None, None)


def test_a_region_has_a_name_of_ours() -> None:
    assert named_regions((("primary", "file:///x"),))[0].url == "file:///x"
    with pytest.raises(InvalidName):
        named_regions((("../x", "file:///x"),))


def test_an_unregistered_tenant_needs_a_region() -> None:
    with pytest.raises(TenantUnknown):
        connected("acme", (), None)
