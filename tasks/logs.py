"""The steps of keeping a tenant's transaction logs as tasks: find them, keep each, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from kryonix_backup.cli.text import size
from kryonix_backup.model import BackupKind
from tasks.connection import connect
from tasks.policy import MINUTE_S, POLICY
from tasks.run import note_facts, tag_run

Plain = dict[str, Any]


@task(
    name="find the logs",
    task_run_name="find the logs of {tenant}",
    timeout_seconds=10 * MINUTE_S,
    **POLICY,
)
def find_logs(tenant: str, sources: Sequence[str]) -> list[str]:
    """Which of these sources, or of all, keep a log; one that does not exist is refused."""
    client = connect(tenant)
    tag_run(f"tenant:{tenant}", f"tier:{client.settings.tier}", "backup")
    return [*client.log_sources(sources)]


@task(name="keep a log", task_run_name="keep the log of {source} of {tenant}", **POLICY)
def keep_log(tenant: str, source: str) -> State[Plain]:
    """Keep what was committed until now."""
    (report,) = connect(tenant).back_up_logs([source]).values()
    moment = report.restorable.isoformat() if report.restorable else "no moment yet"
    return Completed(message=f"restorable to {moment}", data=report.to_plain())


@task(name="report", task_run_name="report on {tenant}", timeout_seconds=5 * MINUTE_S, **POLICY)
def report_logs(tenant: str, reports: Sequence[Plain]) -> Plain:
    """Show to which moment each source can be restored; the whole as one report."""
    whole = any(report["needs_full"] for report in reports)
    status = "incomplete" if whole else "complete"
    rows = [log_row(report) for report in reports]
    create_table_artifact(rows, key=f"logs-{tenant}", description=f"Transaction logs of {tenant}")
    note_facts(tenant, status=status)
    sources = {report["source"]: report for report in reports}
    return {"tenant": tenant, "kind": BackupKind.LOG.value, "status": status, "sources": sources}


def log_row(report: Mapping[str, Any]) -> dict[str, str | int]:
    """One source's log as a row of a table."""
    return {
        "Source": report["source"],
        "Restorable to": report["restorable"] or "no moment yet",
        "Commits": report["commits"],
        "Changes": report["changes"],
        "Segments": report["segments"],
        "Read": size(report["bytes_read"]),
        "Needs": "a full backup" if report["needs_full"] else "",
    }


def logs_line(report: Mapping[str, Any]) -> str:
    """What it came to, for the state of the run."""
    told = [
        f"{name} to {source['restorable'] or 'no moment yet'}"
        for name, source in report["sources"].items()
    ]
    line = f"restorable: {', '.join(told)}"
    return line if report["status"] == "complete" else f"{line}; only a full backup leads on"
