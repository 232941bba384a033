"""A restore is done phase by phase, once each, and undone as a whole."""

from __future__ import annotations

from functools import partial

import pytest

from kryonix_backup.errors import (
    AlreadyRunning,
    Damaged,
    RestoreError,
    StoreUnavailable,
    TargetFull,
    ValidationFailed,
    WouldOverwrite,
)
from kryonix_backup.events import Progress, quiet
from kryonix_backup.model import ChunkId, Phase, Problem, SourceName
from kryonix_backup.restore.plan import RestorePlan
from kryonix_backup.restore.report import PhaseResult, RestoreReport
from kryonix_backup.restore.run import finish_restore, roll_back, run_phase
from kryonix_backup.sources.source import Content, LoadReport
from kryonix_backup.testing.clock import TickingClock
from kryonix_backup.testing.repositories import reopened
from kryonix_backup.testing.sources import MemoryTarget
from tests.restore.conftest import CONTENT, Tenant

FILES = Phase.FILE_STORAGE_RESTORE
LAST = Phase.VALIDATION_AND_FINALIZATION


def _phase(tenant: Tenant, plan: RestorePlan, phase: Phase) -> PhaseResult:
    return run_phase(tenant.repository, plan, phase, quiet, tenant.clock)


def _run(tenant: Tenant, plan: RestorePlan, upto: Phase = LAST) -> RestoreReport:
    for phase in Phase:
        if phase <= upto:
            _phase(tenant, plan, phase)
    return finish_restore(tenant.repository, plan)


def _there(tenant: Tenant, source: str) -> dict[bytes, bytes]:
    return {path: data for path, (_, data) in tenant.targets[f"memory://{source}"].there.items()}


def _expected(source: str) -> dict[bytes, bytes]:
    return {path: thing.data for path, thing in CONTENT[source].items()}


def test_everything_is_as_it_was(tenant: Tenant) -> None:
    report = _run(tenant, tenant.plan())

    assert report.status == "complete"
    assert {name: _there(tenant, name) for name in CONTENT} == {
        name: _expected(name) for name in CONTENT
    }
    assert [phase.status for phase in report.phases] == [
        "done", "done", "done", "done", "skipped", "done",
    ]  # fmt: skip
    assert [phase.bytes for phase in report.phases] == [0, 4000, 3, 8001, 0, 0]


def test_nothing_is_in_place_before_the_last_phase(tenant: Tenant) -> None:
    _run(tenant, tenant.plan(), upto=Phase.MESSAGING_RESTORE)

    assert all(_there(tenant, name) == {} for name in CONTENT)


def test_every_target_takes_its_steps_in_order(tenant: Tenant) -> None:
    _run(tenant, tenant.plan())

    for name in CONTENT:
        assert tenant.targets[f"memory://{name}"].calls == [
            "prepare", "load", "compare", "commit", "finish",
        ]  # fmt: skip


def test_a_phase_that_is_done_gives_its_recorded_result(tenant: Tenant) -> None:
    plan = tenant.plan()
    first = [_phase(tenant, plan, phase) for phase in Phase]
    calls = [list(target.calls) for target in tenant.targets.values()]

    tenant.repository = reopened(tenant.store)
    again = [_phase(tenant, plan, phase) for phase in Phase]

    assert again == first
    assert [target.calls for target in tenant.targets.values()] == calls


def test_a_run_that_was_killed_goes_on_after_its_last_phase(tenant: Tenant) -> None:
    plan = tenant.plan()
    _run(tenant, plan, upto=Phase.DATABASE_RESTORE)

    tenant.repository = reopened(tenant.store)
    report = _run(tenant, plan)

    assert report.status == "complete"
    assert tenant.targets["memory://db"].calls.count("load") == 1


def test_one_snapshot_restores_twice_side_by_side(tenant: Tenant) -> None:
    one = tenant.plan(sources=("files",))
    two = tenant.plan(sources=("files",), to={"files": "memory://elsewhere"})

    for phase in Phase:
        _phase(tenant, one, phase)
        _phase(tenant, two, phase)

    assert _there(tenant, "files") == _there(tenant, "elsewhere") == _expected("files")


def test_a_second_runner_of_the_same_phase_is_told(tenant: Tenant) -> None:
    plan = tenant.plan()

    class Slow(MemoryTarget):
        """While it loads, another process does the same phase."""

        def load(self, content: Content) -> LoadReport:
            tenant.targets["memory://db"] = MemoryTarget()
            _phase(tenant, plan, Phase.DATABASE_RESTORE)
            return super().load(content)

    tenant.targets["memory://db"] = Slow()

    with pytest.raises(AlreadyRunning, match=plan.restore):
        _phase(tenant, plan, Phase.DATABASE_RESTORE)


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize("error", [WouldOverwrite("x is there"), TargetFull("no room")])
def test_what_a_target_refuses_stops_the_restore_before_anything_is_loaded(
    tenant: Tenant, error: RestoreError
) -> None:
    tenant.targets["memory://files"].fails["prepare"] = error

    with pytest.raises(type(error)):
        _run(tenant, tenant.plan())
    assert all("load" not in target.calls for target in tenant.targets.values())


def test_a_missing_chunk_stops_the_restore_before_anything_is_loaded(tenant: Tenant) -> None:
    plan = tenant.plan()
    repository = reopened(tenant.store)
    reader = repository.reader()
    (part,) = repository.snapshot("latest").sources[SourceName("files")].parts
    entry = next(repository.tree(part.root, reader).entries(b"d/b.txt"))
    found = repository.load_index().find(ChunkId(entry.refs[:32]))
    assert found is not None
    del tenant.store.objects[f"packs/{found.pack.id[:2]}/{found.pack.id}"]
    tenant.repository = reopened(tenant.store)

    with pytest.raises(Damaged, match="is missing"):
        _run(tenant, plan)
    assert all("load" not in target.calls for target in tenant.targets.values())


def test_a_database_that_fails_stops_the_restore(tenant: Tenant) -> None:
    plan = tenant.plan()
    tenant.targets["memory://db"].fails["load"] = RestoreError("refused")

    with pytest.raises(RestoreError, match="refused"):
        _run(tenant, plan)
    roll_back(tenant.repository, plan)

    assert finish_restore(tenant.repository, plan).status == "rolled back"
    assert all(_there(tenant, name) == {} for name in CONTENT)


def test_a_cache_that_fails_is_left_behind_and_the_rest_goes_on(tenant: Tenant) -> None:
    tenant.targets["memory://cache"].fails["load"] = RestoreError("refused")

    report = _run(tenant, tenant.plan())

    assert report.status == "degraded"
    assert _there(tenant, "cache") == {}
    assert _there(tenant, "db") == _expected("db")
    assert report.phases[2].failed_sources == ("cache",)
    assert report.phases[2].problems == (Problem("cache", "refused"),)
    assert tenant.targets["memory://cache"].calls == ["prepare", "roll_back"]


def test_strict_makes_every_failure_stop_it(tenant: Tenant) -> None:
    tenant.targets["memory://cache"].fails["load"] = RestoreError("refused")

    with pytest.raises(RestoreError, match="refused"):
        _run(tenant, tenant.plan(strict=True))


def test_a_restore_of_which_nothing_came_back_has_failed(tenant: Tenant) -> None:
    tenant.targets["memory://files"].fails["load"] = RestoreError("refused")

    report = _run(tenant, tenant.plan(sources=("files",)))

    assert report.status == "failed"


def test_entries_that_a_target_cannot_bring_back_are_told(tenant: Tenant) -> None:
    tenant.targets["memory://files"].problems = (Problem("pipe", "is not made"),)

    report = _run(tenant, tenant.plan())

    assert report.status == "degraded"
    assert report.to_plain()["problems"] == [{"path": "pipe", "reason": "is not made"}]


def test_very_many_problems_are_counted_and_not_all_kept(tenant: Tenant) -> None:
    tenant.targets["memory://files"].problems = tuple(
        Problem(f"{number}", "x") for number in range(5000)
    )

    report = _run(tenant, tenant.plan())

    assert len(report.phases[3].problems) == 1001
    assert "4000 more" in report.phases[3].problems[-1].reason


def test_what_came_out_different_is_never_switched_to(tenant: Tenant) -> None:
    plan = tenant.plan()
    tenant.targets["memory://files"].differing = [Problem("a.txt", "has other content")]

    with pytest.raises(ValidationFailed, match=r"a\.txt"):
        _run(tenant, plan)
    assert all("commit" not in target.calls for target in tenant.targets.values())

    roll_back(tenant.repository, plan)
    assert finish_restore(tenant.repository, plan).status == "rolled back"


def test_a_store_that_does_not_answer_can_be_tried_again(tenant: Tenant) -> None:
    plan = tenant.plan()
    tenant.targets["memory://db"].fails["load"] = RestoreError("refused")
    tenant.targets["memory://db"].fails["prepare"] = StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        _phase(tenant, plan, Phase.INFRASTRUCTURE_PREPARATION)

    assert _phase(tenant, plan, Phase.INFRASTRUCTURE_PREPARATION).status == "done"


# ---------------------------------------------------------------------- switching, and back


def test_a_switch_that_fails_half_way_is_undone_everywhere(tenant: Tenant) -> None:
    old = _old_state(tenant)
    plan = tenant.plan()
    tenant.targets["memory://files"].fails["commit"] = RestoreError("busy")

    with pytest.raises(RestoreError, match="busy"):
        _run(tenant, plan)
    assert _there(tenant, "db") == _expected("db")
    roll_back(tenant.repository, plan)

    assert all(_there(tenant, name) == old for name in CONTENT)


def _old_state(tenant: Tenant) -> dict[bytes, bytes]:
    plan = tenant.plan(sources=("cache",))
    _run(tenant, plan)
    (thing,) = tenant.targets["memory://cache"].there.items()
    for name in CONTENT:
        target = MemoryTarget()
        target.there = dict([thing])
        tenant.targets[f"memory://{name}"] = target
    return {b"keys": b"key"}


def test_a_run_killed_while_switching_goes_on_without_comparing_again(tenant: Tenant) -> None:
    """What was moved into place is not beside it any more."""
    plan = tenant.plan()
    tenant.targets["memory://files"].fails["commit"] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        _run(tenant, plan)
    for target in tenant.targets.values():
        target.fails["compare"] = RestoreError("nothing was loaded")

    report = _run(tenant, plan)

    assert report.status == "complete"
    assert {name: _there(tenant, name) for name in CONTENT} == {
        name: _expected(name) for name in CONTENT
    }


def test_tidying_up_that_fails_undoes_nothing(tenant: Tenant) -> None:
    plan = tenant.plan()
    tenant.targets["memory://files"].fails["finish"] = RestoreError("busy")

    report = _run(tenant, plan)

    assert report.status == "degraded"
    assert report.to_plain()["problems"] == [{"path": "files", "reason": "busy"}]
    assert _there(tenant, "files") == _expected("files")


@pytest.mark.parametrize("killed", [False, True])
def test_a_completed_restore_is_not_rolled_back(tenant: Tenant, killed: bool) -> None:
    """What it replaced is gone, so saying that it is back would be a lie."""
    plan = tenant.plan()
    if killed:
        tenant.targets["memory://files"].fails["finish"] = KeyboardInterrupt()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            _run(tenant, plan)
    else:
        _run(tenant, plan)

    with pytest.raises(RestoreError, match="completed"):
        roll_back(tenant.repository, plan)

    assert _run(tenant, plan).status == "complete"
    assert _there(tenant, "db") == _expected("db")


def test_a_restore_that_was_rolled_back_does_not_go_on(tenant: Tenant) -> None:
    plan = tenant.plan()
    _run(tenant, plan, upto=FILES)
    roll_back(tenant.repository, plan)

    with pytest.raises(ValidationFailed, match="rolled back"):
        _phase(tenant, plan, LAST)


def test_rolling_back_can_be_done_again(tenant: Tenant) -> None:
    plan = tenant.plan()
    _run(tenant, plan, upto=FILES)
    tenant.targets["memory://db"].fails["roll_back"] = RestoreError("busy")

    with pytest.raises(RestoreError, match="busy"):
        roll_back(tenant.repository, plan)
    roll_back(tenant.repository, plan)
    roll_back(tenant.repository, plan)

    assert finish_restore(tenant.repository, plan).status == "rolled back"
    assert all(target.beside == {} for target in tenant.targets.values())


def test_sources_are_rolled_back_in_the_order_of_a_stack(tenant: Tenant) -> None:
    plan = tenant.plan()
    order: list[str] = []
    for name in CONTENT:
        target = tenant.targets[f"memory://{name}"]
        target.roll_back = partial(order.append, name)  # type: ignore[method-assign]

    roll_back(tenant.repository, plan)

    assert order == ["files", "cache", "db"]


def test_progress_is_told_while_a_source_is_loaded(tenant: Tenant) -> None:
    plan = tenant.plan()
    told: list[Progress] = []

    run_phase(tenant.repository, plan, FILES, told.append, TickingClock())

    assert told
    assert {progress.stage for progress in told} == {"restore"}
    assert [each.bytes_done for each in told] == sorted(each.bytes_done for each in told)
    assert told[-1].bytes_done <= told[-1].bytes_total
