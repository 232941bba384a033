from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.schedules import cron, follow_cron
from kryonix_backup.model import BackupKind, Tier

RPO_MIN = {Tier.ENTERPRISE: 5, Tier.PROFESSIONAL: 15, Tier.STANDARD: 30}


@pytest.mark.parametrize("tier", Tier)
@given(tenant=st.from_regex(r"[a-z]{1,10}", fullmatch=True))
def test_increments_come_more_often_than_the_tier_may_lose(tier: Tier, tenant: str) -> None:
    first, every = (
        int(each) for each in cron(tenant, tier, BackupKind.INCREMENTAL).split()[0].split("-59/")
    )
    minutes = [hour * 60 + minute for hour in range(3) for minute in range(first, 60, every)]

    gaps = {later - earlier for earlier, later in pairwise(minutes)}

    assert gaps == {every}
    assert every < RPO_MIN[tier]


def test_tenants_do_not_come_at_once() -> None:
    lines = [cron(f"tenant{number}", Tier.STANDARD, BackupKind.FULL) for number in range(500)]

    assert max(Counter(lines).values()) <= 5
    assert {line.split()[-1] for line in lines} == set("0123456")


def test_a_schedule_is_the_same_on_every_machine() -> None:
    assert cron("acme", Tier.STANDARD, BackupKind.FULL) == cron(
        "acme", Tier.STANDARD, BackupKind.FULL
    )
    assert cron("acme", Tier.STANDARD, BackupKind.FULL) != cron(
        "globex", Tier.STANDARD, BackupKind.FULL
    )


@pytest.mark.parametrize("tier", Tier)
def test_who_follows_logs_is_looked_after_more_often_than_the_tier_may_lose(tier: Tier) -> None:
    every = int(follow_cron(tier).split()[0].removeprefix("*/"))

    assert every < RPO_MIN[tier]
    assert 60 % every == 0
