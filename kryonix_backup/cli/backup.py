"""`kryonix backup`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import connected, tenant_argument
from kryonix_backup.cli.progress import shown_progress
from kryonix_backup.cli.text import duration, printable, size
from kryonix_backup.model import BackupKind

if TYPE_CHECKING:
    from kryonix_backup.sdk.client import LogReport

LEFT_OUT = 3
_PROBLEMS_SHOWN = 10


@click.command(
    epilog="Example: kryonix backup acme --source documents --kind incremental",
)
@tenant_argument
@click.option(
    "--source", "sources", metavar="NAME", multiple=True,
    help="Only this source; repeatable. Without it all of the tenant's.",
)  # fmt: skip
@click.option(
    "--kind", type=click.Choice([kind.value for kind in BackupKind]), default="full",
    show_default=True,
    help="full reads everything; incremental only what its source knows to have changed, of a"
    " database its transaction log; log only fetches that. All store only what is new, and all"
    " restore alike.",
)  # fmt: skip
@answers
def backup(tenant: str, sources: tuple[str, ...], kind: str) -> Answer:
    """
    Back up a tenant's sources into a new snapshot.

    Exits 3 when the snapshot was made but entries had to be left out, or when a log has a gap; the
    report names them.
    """
    client = connected(tenant, (), None)
    if kind == BackupKind.LOG.value:
        return log_answer(tenant, client.back_up_logs(sources))
    with shown_progress() as listener:
        report = client.backup(kind=BackupKind(kind), sources=sources, listener=listener)
    plain = report.to_plain()
    return Answer(plain, backup_lines(plain), LEFT_OUT if plain["problems"] else 0)


def log_answer(tenant: str, reports: dict[str, LogReport]) -> Answer:
    """The newest moment that each source can be restored to; 3 where only a full leads there."""
    plain = {
        "tenant": tenant,
        "kind": BackupKind.LOG.value,
        "sources": {name: report.to_plain() for name, report in reports.items()},
    }
    broken = any(report.needs_full for report in reports.values())
    return Answer(plain, _log_lines(tenant, reports), LEFT_OUT if broken else 0)


def _log_lines(tenant: str, reports: dict[str, LogReport]) -> Iterator[str]:
    for name, report in reports.items():
        moment = report.restorable.isoformat() if report.restorable else "no moment yet"
        yield (
            f"{name}: log kept to {moment}: {report.commits:,} commits, {report.changes:,} changes,"
            f" {size(report.bytes_read)} in {report.segments:,} segments"
        )
        if report.gap:
            since = report.gap["gap_from"] or "its beginning"
            yield printable(f"  it has a gap since {since}: {report.gap['reason']}")
        for reason in report.broken:
            yield printable(f"  it cannot be replayed beyond this: {reason}")
        if report.needs_full:
            yield f"  run 'kryonix backup {tenant} --kind full': only that leads on from here"


def backup_lines(report: dict[str, Any]) -> Iterator[str]:
    """What a backup came to, source by source."""
    took = duration(report["duration_s"])
    yield f"snapshot {report['snapshot']}: {report['kind']} backup {report['status']} in {took}"
    for name, source in report["sources"].items():
        yield (
            f"  {name}: {source['entries']:,} entries ({source['entries_unchanged']:,} known to be"
            f" unchanged), {size(source['bytes_total'])}, {size(source['bytes_read'])} read,"
            f" {size(source['bytes_new'])} new, {size(source['bytes_stored'])} stored"
        )
        if source["why"]:
            yield printable(f"    it is a full backup: {source['why']}")
    yield from problem_lines(report["problems"])


def problem_lines(problems: list[dict[str, Any]]) -> Iterator[str]:
    """What was left out: the first few, and how many there are."""
    if not problems:
        return
    yield f"{len(problems):,} entries were left out or may not be whole:"
    for problem in problems[:_PROBLEMS_SHOWN]:
        source = f"{problem['source']}/" if problem.get("source") else ""
        yield printable(f"  {source}{problem['path']}: {problem['reason']}")
    if len(problems) > _PROBLEMS_SHOWN:
        yield f"  and {len(problems) - _PROBLEMS_SHOWN:,} more; --json names all"
