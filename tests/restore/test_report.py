"""What is told of a restore has the form that is promised, and survives the journal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kryonix_backup.model import Phase, Problem
from kryonix_backup.restore.report import PhaseResult, RestoreReport, TaskResult, status_of
from tests.restore.conftest import Tenant

LOADED = PhaseResult(
    Phase.FILE_STORAGE_RESTORE, "done", 1.5, 1000, (TaskResult("restore files", "done", 1.5),)
)
CHECKED = PhaseResult(Phase.VALIDATION_AND_FINALIZATION, "done", 0.5, 0, ())
PROBLEM = Problem("a", "is not made")


def _with(result: PhaseResult, **changes: Any) -> PhaseResult:
    return PhaseResult(**{**{f: getattr(result, f) for f in result.__slots__}, **changes})


@pytest.mark.parametrize(
    "result", [LOADED, _with(LOADED, problems=(PROBLEM,), failed_sources=("files",))]
)
def test_a_result_comes_back_out_of_its_json(result: PhaseResult) -> None:
    assert PhaseResult.from_plain(json.loads(json.dumps(result.to_plain()))) == result


def test_the_report_has_its_known_form(tenant: Tenant) -> None:
    plan = tenant.plan(sources=("files",))

    plain = RestoreReport(plan, "complete", (LOADED, CHECKED)).to_plain()

    assert plain == {
        "restore": plan.restore,
        "tenant": "acme",
        "snapshot": plan.snapshot,
        "status": "complete",
        "phases": [LOADED.to_plain(), CHECKED.to_plain()],
        "validation": {"status": "done", "problems": []},
        "bytes": 1000,
        "estimate_s": 0.0,
        "duration_s": 2.0,
        "problems": [],
    }
    assert plain["phases"][0]["name"] == "file_storage_restore"
    assert plain["phases"][0]["tasks"] == [
        {"name": "restore files", "status": "done", "duration_s": 1.5, "detail": ""}
    ]


def test_a_restore_that_did_not_come_so_far_was_not_validated(tenant: Tenant) -> None:
    plain = RestoreReport(tenant.plan(), "rolled back", (LOADED,)).to_plain()

    assert plain["validation"] == {"status": "not reached", "problems": []}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "complete"),
        ({"problems": (PROBLEM,)}, "degraded"),
        ({"failed_sources": ("files",)}, "degraded"),
        ({"failed_sources": ("db", "cache", "files")}, "failed"),
    ],
)
def test_what_a_restore_amounts_to(tenant: Tenant, changes: dict[str, object], status: str) -> None:
    assert status_of(tenant.plan(), [_with(LOADED, **changes), CHECKED]) == status
