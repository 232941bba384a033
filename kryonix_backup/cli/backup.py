"""`kryonix backup`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import connected, tenant_argument
from kryonix_backup.cli.progress import shown_progress
from kryonix_backup.cli.text import duration, printable, size
from kryonix_backup.model import BackupKind

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
    help="full reads everything; incremental only what its source knows to have changed; log only"
    " the transaction log. All store only what is new, and all restore alike.",
)  # fmt: skip
@answers
def backup(tenant: str, sources: tuple[str, ...], kind: str) -> Answer:
    """
    Back up a tenant's sources into a new snapshot.

    Exits 3 when the snapshot was made but entries had to be left out; the report names them.
    """
    client = connected(tenant, (), None)
    with shown_progress() as listener:
        report = client.backup(kind=BackupKind(kind), sources=sources, listener=listener)
    plain = report.to_plain()
    return Answer(plain, _lines(plain), LEFT_OUT if plain["problems"] else 0)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    took = duration(report["duration_s"])
    yield f"snapshot {report['snapshot']}: {report['kind']} backup {report['status']} in {took}"
    for name, source in report["sources"].items():
        yield (
            f"  {name}: {source['entries']:,} entries ({source['entries_unchanged']:,} known to be"
            f" unchanged), {size(source['bytes_total'])}, {size(source['bytes_read'])} read,"
            f" {size(source['bytes_new'])} new, {size(source['bytes_stored'])} stored"
        )
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
