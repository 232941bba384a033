"""A plan says what a restore will do, takes the right snapshot, and changes nothing."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from kryonix_backup.errors import (
    ConfigError,
    Damaged,
    KryonixError,
    RestoreUnknown,
    SnapshotUnknown,
    UsageError,
)
from kryonix_backup.model import Phase
from kryonix_backup.restore.plan import (
    RestorePlan,
    RestoreRequest,
    load_plan,
    plan_restore,
)
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.repositories import back_up, new_repository
from kryonix_backup.testing.sources import MemorySource
from tests.restore.conftest import Tenant


def _plan(tenant: Tenant, **request: Any) -> RestorePlan:
    return plan_restore(tenant.repository, RestoreRequest(**request), tenant.clock)


def test_everything_comes_back_in_the_order_of_the_phases(tenant: Tenant) -> None:
    plan = _plan(tenant)

    assert [(step.source, step.phase.value, step.target) for step in plan.steps] == [
        ("db", 2, "memory://db"), ("cache", 3, "memory://cache"), ("files", 4, "memory://files"),
    ]  # fmt: skip
    assert [(step.entries, step.bytes) for step in plan.steps] == [(1, 4000), (1, 3), (5, 8001)]
    assert plan.snapshot == tenant.repository.snapshot_ids()[-1]
    assert (plan.tenant, plan.taken, plan.created) == ("acme", NOON, tenant.clock.now())


def test_planning_changes_nothing(tenant: Tenant) -> None:
    before = dict(tenant.store.objects)

    _plan(tenant, sources=("files",), include=("*.txt",))

    assert tenant.store.objects == before
    assert all(target.calls == [] for target in tenant.targets.values())


def test_a_plan_comes_back_out_of_its_json_and_the_journal(tenant: Tenant) -> None:
    plan = tenant.plan(include=("*.txt",), sources=("files",), strict=True, overwrite=True)

    assert RestorePlan.from_plain(json.loads(json.dumps(plan.to_plain()))) == plan
    assert load_plan(tenant.repository, plan.restore) == plan
    assert plan.to_plain()["estimate_s"] == plan.estimate_s >= 0


@pytest.mark.parametrize("restore", ["", "x", "../x", "20261123t120000z-0123456789abcdef"])
def test_a_restore_that_was_not_begun_is_unknown(tenant: Tenant, restore: str) -> None:
    with pytest.raises(RestoreUnknown):
        load_plan(tenant.repository, restore)


def test_the_latest_is_the_newest_and_an_id_may_be_cut(tenant: Tenant) -> None:
    first = tenant.repository.snapshot_ids()[0]
    second = tenant.take(3).id

    assert _plan(tenant).snapshot == second
    assert _plan(tenant, snapshot=first).snapshot == first
    assert _plan(tenant, snapshot=first[:8]).snapshot == first
    with pytest.raises(SnapshotUnknown):
        _plan(tenant, snapshot="20261")


@given(minutes=integers(-1, 6 * 1440))
def test_a_time_takes_the_newest_snapshot_finished_by_then(minutes: int) -> None:
    repository = new_repository()
    days = [0, 1, 2, 5]
    for day in days:
        back_up(repository, MemorySource({}), clock=FixedClock(NOON + timedelta(days=day)))
    at = NOON + timedelta(minutes=minutes)
    fitting = [day for day in days if NOON + timedelta(days=day) <= at]

    request = RestoreRequest(at=at, to={"files": "files:///nowhere"})

    if not fitting:
        with pytest.raises(SnapshotUnknown, match="oldest was taken 2026-11-23T12:00:00"):
            plan_restore(repository, request, FixedClock())
        return
    taken = plan_restore(repository, request, FixedClock()).taken
    assert taken == NOON + timedelta(days=max(fitting))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"sources": ("mail",)}, ConfigError),
        ({"to": {"mail": "memory://files"}}, ConfigError),
        ({"snapshot": "20200101"}, SnapshotUnknown),
        ({"snapshot": "20261123", "at": NOON}, UsageError),
        ({"at": datetime(2026, 11, 23, 12)}, UsageError),  # noqa: DTZ001  # that is the point
        ({"include": ("*.png",)}, SnapshotUnknown),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(
    tenant: Tenant, request_: dict[str, object], error: type[KryonixError]
) -> None:
    with pytest.raises(error):
        _plan(tenant, **request_)


def test_an_empty_repository_has_nothing_to_restore() -> None:
    repository = new_repository()

    with pytest.raises(SnapshotUnknown, match="none yet"):
        plan_restore(repository, RestoreRequest(at=NOON), FixedClock())


def test_sources_and_their_targets_can_be_chosen(tenant: Tenant) -> None:
    plan = _plan(tenant, sources=("files",), to={"files": "memory://elsewhere"})

    assert [(step.source, step.target) for step in plan.steps] == [("files", "memory://elsewhere")]


def test_patterns_choose_entries_and_what_is_above_them(tenant: Tenant) -> None:
    plan = _plan(tenant, sources=("files",), include=("*.txt",))

    (step,) = plan.steps
    assert (step.entries, step.bytes) == (4, 8000)
    assert step.phase is Phase.FILE_STORAGE_RESTORE


def test_a_damaged_manifest_hides_no_older_snapshot(tenant: Tenant) -> None:
    repository = tenant.repository
    good = repository.snapshot_ids()
    tenant.take(day=1)
    newest = tenant.store.names("snapshots/")[-1]
    tenant.store.objects[newest] = tenant.store.objects[newest][:-1]

    plan = _plan(tenant, at=NOON + timedelta(days=2))

    assert plan.snapshot == good[-1]
    assert [snapshot.id for snapshot in repository.snapshots()] == good


def test_a_damaged_snapshot_is_told_before_anything_begins(tenant: Tenant) -> None:
    (name,) = tenant.store.names("snapshots/")
    tenant.store.objects[name] = tenant.store.objects[name][:-1]

    with pytest.raises(Damaged, match=name):
        _plan(tenant)
