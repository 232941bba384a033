"""What a run came to, as artifacts in the UI and one line for its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from kryonix_backup.cli.text import duration, printable, size
from kryonix_backup.sdk.client import PhaseResult, SourceResult
from tasks.policy import MINUTE_S, POLICY
from tasks.run import note_facts

Plain = dict[str, Any]
Row = dict[str, str | int]
_PROBLEMS_SHOWN = 100


@task(name="report", task_run_name="report on {tenant}", timeout_seconds=5 * MINUTE_S, **POLICY)
def report_backup(tenant: str, report: Plain) -> str:
    """Show a backup's figures by source, and say in a line what it came to."""
    rows = backup_table(report)
    create_table_artifact(
        rows, key=f"backup-{tenant}", description=f"Figures of the newest backup of {tenant}"
    )
    create_markdown_artifact(
        backup_text(report),
        key=f"snapshot-{tenant}",
        description=f"The newest snapshot of {tenant}, and what can be done with it",
    )
    note_facts(tenant, snapshot=report["snapshot"], status=report["status"])
    return backup_line(report)


@task(
    name="show the plan",
    task_run_name="show the plan for {tenant}",
    timeout_seconds=5 * MINUTE_S,
    **POLICY,
)
def show_plan(tenant: str, plan: Plain) -> None:
    """Show what a restore is going to do."""
    create_table_artifact(
        plan_table(plan),
        key=f"restore-plan-{tenant}",
        description=f"Plan of restore {plan['restore']}, about {duration(plan['estimate_s'])}",
    )


@task(name="report", task_run_name="report on {tenant}", timeout_seconds=5 * MINUTE_S, **POLICY)
def report_restore(tenant: str, report: Plain) -> str:
    """Show a restore phase by phase, and say in a line what it came to."""
    create_table_artifact(
        restore_table(report),
        key=f"restore-{tenant}",
        description=f"Phases of the newest restore of {tenant}",
    )
    create_markdown_artifact(
        restore_text(report),
        key=f"restored-{tenant}",
        description=f"What the newest restore of {tenant} came to",
    )
    note_facts(tenant, snapshot=report["snapshot"], status=report["status"])
    return restore_line(report)


@task(name="report", task_run_name="report on {tenant}", timeout_seconds=5 * MINUTE_S, **POLICY)
def report_tenant(tenant: str, settings: Plain, done: Plain) -> str:
    """Show what a new tenant is made of, and what each step of taking it on came to."""
    steps = [{"Step": step, "Came to": _code(in_words(facts))} for step, facts in done.items()]
    create_table_artifact(
        steps,
        key=f"onboarding-{tenant}",
        description=f"What each step of taking {tenant} on came to",
    )
    rows = [{"What": "region", **row} for row in settings["regions"]]
    rows += [{"What": "source", "name": row["name"], "url": row["url"]}
             for row in settings["sources"]]  # fmt: skip
    create_table_artifact(
        rows, key=f"tenant-{tenant}", description=f"Regions and sources of {tenant}"
    )
    return f"{tenant} is ready: run 'kryonix flow backup {tenant}'"


def in_words(value: Any) -> str:
    """Names, numbers and lists of them as a person reads them."""
    if isinstance(value, Mapping):
        return "; ".join(f"{_spaced(name)}: {_inner(each)}" for name, each in value.items())
    return _inner(value)


def _inner(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            ", ".join(f"{_spaced(name)} {_inner(each)}" for name, each in value.items()) or "none"
        )
    if isinstance(value, list | tuple):
        return ", ".join(map(_inner, value)) or "none"
    return "none" if value is None else str(value)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def source_line(result: SourceResult) -> str:
    """What one source came to, for the state of its task."""
    line = f"{size(result.bytes_read)} read, {size(result.bytes_stored)} stored"
    if result.why:
        line += f"; a full backup, because {printable(result.why)}"
    count = len(result.problems)
    return line if not count else f"{line}; {count} entries could not be saved as they are"


def phase_line(result: PhaseResult) -> str:
    """What one phase came to, for the state of its task."""
    line = f"{result.status}, {size(result.bytes)} restored"
    count = len(result.problems)
    return line if not count else f"{line}; {count} problems"


def backup_table(report: Mapping[str, Any]) -> list[Row]:
    """A row for each source and one for all."""
    rows = [_source_row(name, source) for name, source in report["sources"].items()]
    total = {**report, "problems": len(report["problems"])}
    return [*rows, _source_row("total", total)]


def _source_row(name: str, figures: Mapping[str, Any]) -> Row:
    return {
        "Source": name,
        "Entries": figures["entries"],
        "Unchanged": figures["entries_unchanged"],
        "Size": size(figures["bytes_total"]),
        "Read": size(figures["bytes_read"]),
        "New": size(figures["bytes_new"]),
        "Stored": size(figures["bytes_stored"]),
        "Deduplicated": _times(figures["bytes_read"], figures["bytes_new"]),
        "Compressed": _times(figures["bytes_new"], figures["bytes_stored"]),
        "Took": duration(figures["duration_s"]),
        "Problems": figures["problems"],
    }


def backup_line(report: Mapping[str, Any]) -> str:
    """What a backup came to, for the state of its run; names the count of problems."""
    line = f"snapshot {report['snapshot']}: {size(report['bytes_stored'])} stored"
    count = len(report["problems"])
    return line if not count else f"{line}; {count} entries could not be saved as they are"


def backup_text(report: Mapping[str, Any]) -> str:
    """A backup's snapshot, what to do next, and what was left out."""
    tenant, snapshot = report["tenant"], report["snapshot"]
    lines = [
        f"**{snapshot}** of **{tenant}** is {report['status']}.",
        "",
        f"- Look into it: `kryonix ls {tenant} {snapshot}`",
        f"- Restore it: `kryonix flow restore {tenant} snapshot={snapshot}`",
    ]
    return "\n".join([*lines, *_problem_lines(report["problems"])])


def plan_table(plan: Mapping[str, Any]) -> list[Row]:
    """A row for each source that comes back."""
    return [
        {
            "Phase": step["phase"],
            "Source": step["source"],
            "To": step["target"],
            "Entries": step["entries"],
            "Size": size(step["bytes"]),
        }
        for step in plan["steps"]
    ]


def restore_table(report: Mapping[str, Any]) -> list[Row]:
    """A row for each phase."""
    return [
        {
            "Phase": phase["name"],
            "Status": phase["status"],
            "Restored": size(phase["bytes"]),
            "Took": duration(phase["duration_s"]),
            "Tasks": ", ".join(each["name"] for each in phase["tasks"]),
            "Problems": len(phase["problems"]),
        }
        for phase in report["phases"]
    ]


def restore_line(report: Mapping[str, Any]) -> str:
    """What a restore came to, for the state of its run; names the count of problems."""
    line = f"restore {report['restore']} is {report['status']}: {size(report['bytes'])} restored"
    count = len(report["problems"])
    return line if not count else f"{line}; {count} problems"


def restore_text(report: Mapping[str, Any]) -> str:
    """A restore's outcome, its validation, and what did not come back."""
    figures = f"{size(report['bytes'])} in {duration(report['duration_s'])}"
    lines = [
        f"**{report['restore']}** of **{report['tenant']}** is {report['status']}.",
        f"Snapshot {report['snapshot']}, {figures}.",
        "",
        f"- Validation: {report['validation']['status']}",
        f"- Other snapshots to go back to: `kryonix snapshots {report['tenant']}`",
    ]
    return "\n".join([*lines, *_problem_lines(report["problems"])])


def _times(whole: float, part: float) -> str:
    """How many times smaller the part is: ``3.2x``, or all of it; a dash where there is nothing."""
    if part > 0:
        return f"{whole / part:.1f}x"
    return "all" if whole > 0 else "-"


def _problem_lines(problems: list[Plain]) -> list[str]:
    if not problems:
        return []
    lines = [f"- `{_code(each['path'])}`: {each['reason']}" for each in problems[:_PROBLEMS_SHOWN]]
    more = len(problems) - len(lines)
    return ["", "### Problems", "", *lines, *([f"- and {more} more"] if more else [])]


def _code(text: str) -> str:
    """A path inside a code span: a backtick in a file's name must not end it."""
    return text.replace("`", "'").replace("\n", " ")
