"""`kryonix restore` and `rollback`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.backup import LEFT_OUT, problem_lines
from kryonix_backup.cli.options import (
    MOMENT,
    NAME_URL,
    connected,
    region_options,
    tenant_argument,
)
from kryonix_backup.cli.progress import shown_progress
from kryonix_backup.cli.text import duration, moment, printable, size, table
from kryonix_backup.errors import RestoreError, UsageError

Regions = tuple[tuple[str, str], ...]

_CODES = {"complete": 0, "degraded": LEFT_OUT}


@click.command(
    epilog="Example: kryonix restore acme --at 2026-11-23T12:00:00Z --to documents=files:///tmp/old",
)
@tenant_argument
@click.option("--snapshot", metavar="S", help="A snapshot's id or its beginning; else the latest.")
@click.option(
    "--at", type=MOMENT,
    help="The newest snapshot finished by then, and of a source that keeps a log every commit up"
    " to then, by the quickest way. ISO 8601; without a zone it means UTC.",
)  # fmt: skip
@click.option("--source", "sources", metavar="NAME", multiple=True, help="Only this; repeatable.")
@click.option(
    "--include", metavar="GLOB", multiple=True,
    help="Only paths that fit this gitignore pattern; repeatable.",
)  # fmt: skip
@click.option(
    "--to", "targets", type=NAME_URL, multiple=True,
    help="Where a source goes, instead of where it came from; repeatable.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--strict", is_flag=True, help="Undo everything where any phase fails.")
@click.option("--overwrite", is_flag=True, help="Replace what is at the target.")
@click.option("--resume", metavar="RESTORE", help="Go on with a restore that was stopped.")
@region_options
@answers
def restore(
    tenant: str, regions: Regions, from_region: str | None, resume: str | None, **asked: Any
) -> Answer:
    """
    Bring a tenant's sources back, in six phases.

    Nothing is overwritten unless you say --overwrite. Exits 3 when something could not be brought
    back and the report says what.
    """
    dry_run = asked.pop("dry_run")
    if resume and (dry_run or any(asked.values())):
        raise UsageError("--resume goes on with a restore as it was planned; leave the rest out")
    client = connected(tenant, regions, from_region)
    if dry_run:
        plan = client.plan_restore(_request(**asked)).to_plain()
        return Answer(plan, _plan_lines(plan))
    with shown_progress() as listener:
        if resume:
            report = client.carry_out(client.resume_restore(resume), listener)
        else:
            report = client.restore(_request(**asked), listener)
    plain = report.to_plain()
    code = _CODES.get(plain["status"], RestoreError.exit_code)
    return Answer(plain, _report_lines(plain), code)


def _request(
    snapshot: str | None,
    at: datetime | None,
    sources: tuple[str, ...],
    targets: tuple[tuple[str, str], ...],
    **rest: Any,
) -> Any:
    from kryonix_backup.sdk.client import RestoreRequest

    if snapshot and at:
        raise UsageError("--snapshot and --at were both given; give one")
    to = dict(targets)
    if len(to) < len(targets):
        raise UsageError("--to names a source twice")
    return RestoreRequest(snapshot=snapshot or "latest", at=at, sources=sources, to=to, **rest)


def _plan_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    yield f"would restore snapshot {plan['snapshot']}, taken {moment(plan['taken'])}"
    rows = [
        (
            step["phase"],
            step["source"],
            f"{step['entries']:,}",
            size(step["bytes"]),
            step["target"],
        )
        for step in plan["steps"]
    ]
    yield from table(("phase", "source", "entries", "size", "to"), rows)
    for step in plan["steps"]:
        if step["why"]:
            yield printable(f"{step['source']}: {step['why']}")
    if not plan["overwrite"]:
        yield "an entry that is there already would stop it; --overwrite replaces those"
    yield f"estimated time: {duration(plan['estimate_s'])}; nothing was changed"


def _report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    took = duration(report["duration_s"])
    yield (
        f"restore {report['restore']} of snapshot {report['snapshot']}: {report['status']} in"
        f" {took} (estimated: {duration(report['estimate_s'])}), {size(report['bytes'])}"
    )
    rows = [
        (phase["name"], phase["status"], duration(phase["duration_s"]), size(phase["bytes"]))
        for phase in report["phases"]
    ]
    yield from table(("phase", "status", "time", "size"), rows)
    yield f"validation: {report['validation']['status']}"
    yield from problem_lines(report["problems"])


@click.command(epilog="Example: kryonix rollback acme 20261123t214005z-9f2ab04c11d2e3f4")
@tenant_argument
@click.argument("restore_id", metavar="RESTORE")
@region_options
@answers
def rollback(tenant: str, restore_id: str, regions: Regions, from_region: str | None) -> Answer:
    """Put everything back as it was before a restore that stopped half way."""
    client = connected(tenant, regions, from_region)
    plan = client.resume_restore(restore_id)
    client.roll_back_restore(plan, because="asked for by the operator")
    plain = {"restore": plan.restore, "tenant": client.tenant, "status": "rolled back"}
    targets = [printable(f"  {step.source} at {step.target}") for step in plan.steps]
    return Answer(plain, [f"restore {plan.restore} was rolled back", *targets])
