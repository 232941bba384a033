"""The steps of rotating a tenant's keys as tasks; no task sees a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact

from tasks.connection import connect_keys
from tasks.policy import HOUR_S, MINUTE_S, POLICY
from tasks.run import note_facts, tag_run

Plain = dict[str, Any]


@task(
    name="see which keys are due",
    task_run_name="see which keys of {tenant} are due",
    timeout_seconds=10 * MINUTE_S,
    **POLICY,
)
def look_at_keys(tenant: str) -> Plain:
    """The tenant's keys with their states and when each is due."""
    keys = connect_keys(tenant)
    tag_run(f"tenant:{tenant}", f"tier:{keys.settings.tier}", "keys")
    return keys.show()


@task(
    name="rotate the keys that are due",
    task_run_name="rotate the due keys of {tenant}",
    timeout_seconds=HOUR_S,
    **POLICY,
)
def rotate_due_keys(tenant: str) -> Plain:
    """Rotate what is due; a change that was cut short is completed first."""
    return connect_keys(tenant).rotate_due()


@task(name="report", task_run_name="report on {tenant}", timeout_seconds=5 * MINUTE_S, **POLICY)
def report_keys(tenant: str, report: Plain) -> str:
    """Show every key and its state, and say in a line what was done and what is due."""
    rows = [
        {
            "Purpose": row["purpose"],
            "Epoch": row["epoch"],
            "State": row["state"],
            "Created": row["created"],
            "Key": row["key"],
        }
        for row in report["keys"]
    ]
    create_table_artifact(
        rows, key=f"keys-{tenant}", description=f"Keys of {tenant} and their states; no secret"
    )
    note_facts(tenant, status="due" if report["due"] else "complete")
    return keys_line(report)


def keys_line(report: Mapping[str, Any]) -> str:
    """What came of it, for the state of the run."""
    told = [f"rotated: {', '.join(report['rotated'])}"] if report.get("rotated") else []
    if report["due"]:
        told.append(f"due: {', '.join(report['due'])}")
    first = min(report["data_due"], report["master"]["due"])
    return "; ".join(told) or f"nothing is due before {first[:10]}"
