from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.schedules import cron, every_minutes, follow_cron, segment_seconds
from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.limits import Terms, load_tiers

TIERS = load_tiers({})
STANDARD = TIERS.of("standard")


@pytest.mark.parametrize("tier", TIERS.terms, ids=lambda tier: tier.name)
@given(tenant=st.from_regex(r"[a-z]{1,10}", fullmatch=True))
def test_increments_come_more_often_than_the_tier_may_lose(tier: Terms, tenant: str) -> None:
    first, every = (
        int(each) for each in cron(tenant, tier, BackupKind.INCREMENTAL).split()[0].split("-59/")
    )
    minutes = [hour * 60 + minute for hour in range(3) for minute in range(first, 60, every)]

    gaps = {later - earlier for earlier, later in pairwise(minutes)}

    assert gaps == {every}
    assert every * 60 < tier.rpo_s


def test_tenants_do_not_come_at_once() -> None:
    lines = [cron(f"tenant{number}", STANDARD, BackupKind.FULL) for number in range(500)]

    assert max(Counter(lines).values()) <= 5
    assert {line.split()[-1] for line in lines} == set("0123456")


def test_a_schedule_is_the_same_on_every_machine() -> None:
    assert cron("acme", STANDARD, BackupKind.FULL) == cron("acme", STANDARD, BackupKind.FULL)
    assert cron("acme", STANDARD, BackupKind.FULL) != cron("globex", STANDARD, BackupKind.FULL)


@pytest.mark.parametrize("tier", TIERS.terms, ids=lambda tier: tier.name)
def test_who_follows_logs_is_looked_after_more_often_than_the_tier_may_lose(tier: Terms) -> None:
    every = int(follow_cron(tier).split()[0].removeprefix("*/"))

    assert every * 60 < tier.rpo_s
    assert 60 % every == 0


def test_the_shipped_tiers_have_the_schedules_they_always_had() -> None:
    assert {tier.name: every_minutes(tier) for tier in TIERS} == {
        "enterprise": 4, "professional": 12, "standard": 20,
    }  # fmt: skip
    assert {segment_seconds(tier) for tier in TIERS} == {60.0}


@given(rpo_s=st.integers(120, 10**6))
def test_any_rpo_has_a_schedule_below_it(rpo_s: int) -> None:
    tier = replace(STANDARD, rpo_s=rpo_s)

    assert every_minutes(tier) * 60 < rpo_s
    assert 60 % every_minutes(tier) == 0
    assert 1 <= segment_seconds(tier) <= min(60.0, rpo_s / 5)
