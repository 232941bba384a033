from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.errors import ConfigError
from kryonix_backup.limits import (
    LEAST_BANDWIDTH_BITS_S,
    LEAST_MEMORY_BYTES,
    Limits,
    LimitSettings,
    read_bandwidth,
    read_count,
    read_memory,
    show_bits,
    show_bytes,
)

TIER = Limits(cores=2, memory_bytes=4 * 10**9, bandwidth_bits_s=500 * 10**6, workers=2)


@given(st.integers(LEAST_MEMORY_BYTES, 1 << 50))
def test_memory_is_read_as_it_is_shown(count: int) -> None:
    assert read_memory(show_bytes(count)) == count


@given(st.integers(LEAST_BANDWIDTH_BITS_S, 1 << 50))
def test_bandwidth_is_read_as_it_is_shown(rate: int) -> None:
    assert read_bandwidth(show_bits(rate)) == rate


def test_units_are_those_of_people() -> None:
    assert read_memory("4 GB") == 4 * 10**9
    assert read_memory("2GiB") == 2 << 30
    assert read_bandwidth("1 Gbit/s") == 10**9
    assert show_bytes(2 << 30) == "2 GiB"


@pytest.mark.parametrize(
    "given",
    ["4", 4_000_000_000, "4 gb", "4.5 GB", "-1 GB", "", None, True, "9999999999 TB", "1 MB", "0 GB",
     "1 GB/s", "4 GB ", "٤ GB"],
)  # fmt: skip
def test_memory_without_a_unit_or_too_little_to_work_with_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="memory"):
        read_memory(given)


@pytest.mark.parametrize("given", ["1", "1 MB/s", "1 kbit/s", "0 Mbit/s", "fast", None])
def test_bandwidth_without_a_unit_or_too_little_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="bandwidth"):
        read_bandwidth(given)


@pytest.mark.parametrize("given", [0, -1, 1.5, "two", True, None, "", 10**7])
def test_a_count_is_a_whole_number_from_one_on(given: Any) -> None:
    with pytest.raises(ConfigError, match="cores is"):
        read_count("cores", given)


def test_settings_come_back_as_they_were_said() -> None:
    plain = {"cores": 1, "memory": "2 GB", "bandwidth": "100 Mbit/s", "workers": 1}

    assert LimitSettings.from_plain(plain).to_plain() == plain
    assert LimitSettings.from_plain({}).to_plain() == {}


def test_a_tenant_takes_less_than_its_tier_and_never_more() -> None:
    less = LimitSettings(cores=1, bandwidth_bits_s=10**6)
    more = LimitSettings(cores=64, memory_bytes=1 << 40, bandwidth_bits_s=10**12, workers=9)

    assert TIER.lowered(less) == Limits(1, 4 * 10**9, 10**6, 2)
    assert TIER.lowered(more) == TIER
    assert less.above(TIER) is None
    assert more.above(TIER) == "cores"
    assert LimitSettings(workers=3).above(TIER) == "workers"
    assert TIER.to_plain()["workers"] == 2
