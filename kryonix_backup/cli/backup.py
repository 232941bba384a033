"""`kryonix backup`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import connected, tenant_argument
from kryonix_backup.cli.progress import shown_progress
from kryonix_backup.cli.text import duration, printable, size
from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import UsageError
from kryonix_backup.model import BackupKind

if TYPE_CHECKING:
    from kryonix_backup.sdk.client import Client, LogReport

LEFT_OUT = 3
_LOOK_S = 0.5
_CLOCK = SystemClock()
_PROBLEMS_SHOWN = 10


@click.command(
    epilog="Example: kryonix backup acme --source documents --kind incremental;"
    " or: kryonix backup acme --kind log --follow",
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
@click.option(
    "--follow", is_flag=True,
    help="With --kind log: go on until Ctrl-C; what was committed is kept within a minute.",
)  # fmt: skip
@answers
def backup(tenant: str, sources: tuple[str, ...], kind: str, *, follow: bool) -> Answer:
    """
    Back up a tenant's sources into a new snapshot.

    Exits 3 when the snapshot was made but entries had to be left out, or when a log has a gap; the
    report names them.
    """
    if follow and kind != BackupKind.LOG.value:
        raise UsageError("only a log can be followed", "Say --kind log with --follow.")
    client = connected(tenant, (), None)
    if follow:
        return log_answer(tenant, _followed(client, sources))
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


def _followed(client: Client, sources: tuple[str, ...]) -> dict[str, LogReport]:
    """Follow the logs until Ctrl-C or SIGTERM, telling on stderr whenever something is new."""
    from kryonix_backup.sdk.following import SEGMENT_EVERY_S, LogFollowers, LoggedTenant

    names = client.log_sources(sources)
    followers = LogFollowers(SEGMENT_EVERY_S)
    told: dict[str, str] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # A client for each source: they run side by side.
        logged = LoggedTenant(names, lambda: connected(client.tenant, (), None))
        followers.keep({client.tenant: logged})
        while True:
            for state in followers.states():
                line = f"{state.source}: {state.standing}{_newest(state.report, state.message)}"
                if told.get(state.source) != line:
                    click.echo(printable(line), err=True)
                    told[state.source] = line
            _CLOCK.sleep(_LOOK_S)
    except KeyboardInterrupt:
        click.echo("Letting go: what was committed until now is kept.", err=True)
    finally:
        followers.stop()
    return {state.source: state.report for state in followers.states() if state.report is not None}


def _newest(report: LogReport | None, message: str) -> str:
    if message:
        return f": {message}"
    return (
        f", restorable to {report.restorable.isoformat()}" if report and report.restorable else ""
    )


def _log_lines(tenant: str, reports: dict[str, LogReport]) -> Iterator[str]:
    for name, report in reports.items():
        moment = report.restorable.isoformat() if report.restorable else "no moment yet"
        # A log that is kept byte by byte is not looked into, and nothing of it is counted.
        counts = f" {report.commits:,} commits, {report.changes:,} changes," * bool(report.commits)
        yield (
            f"{name}: log kept to {moment}:{counts}"
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
