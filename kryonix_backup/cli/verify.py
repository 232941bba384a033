"""`kryonix verify`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import connected, region_options, tenant_argument
from kryonix_backup.cli.progress import shown_progress
from kryonix_backup.cli.text import duration, moment_lines, printable, size
from kryonix_backup.errors import Damaged

_SHOWN = 10


@click.command(epilog="Example: kryonix verify acme --level data")
@tenant_argument
@click.option(
    "--level", type=click.Choice(["structure", "sample", "data"]), default="structure",
    show_default=True,
    help="structure: every chunk is in a pack that is whole, every log without a hole; sample: and"
    " a random share of packs and logs is read; data: and all of them are.",
)  # fmt: skip
@click.option(
    "--snapshot", "snapshots", metavar="S", multiple=True,
    help="Only what this snapshot names; repeatable. Without it all.",
)  # fmt: skip
@region_options
@answers
def verify(
    tenant: str,
    level: str,
    snapshots: tuple[str, ...],
    regions: tuple[tuple[str, str], ...],
    from_region: str | None,
) -> Answer:
    """
    Prove that a tenant's snapshots can be read, and its logs replayed.

    Exits 55 when anything is damaged, after naming it and what depends on it.
    """
    client = connected(tenant, regions, from_region)
    from kryonix_backup.sdk.client import Level

    with shown_progress() as listener:
        report = client.verify(Level(level), listener, snapshots).to_plain()
    return Answer(report, _lines(report), Damaged.exit_code if report["damage"] else 0)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{report['status']}: {report['snapshots']:,} snapshots, {report['chunks']:,} chunks in"
        f" {report['packs']:,} packs, {report['segments']:,} segments of logs,"
        f" {size(report['bytes_read'])} read in {duration(report['duration_s'])}"
        f" (level {report['level']})"
    )
    yield from moment_lines(report["tenant"], report["logs"])
    for log in report["logs"].values():
        yield from (f"  {printable(each)}" for each in log["remarks"])
    for damage in report["damage"][:_SHOWN]:
        yield f"  {damage['object']}: {damage['reason']}"
        yield from (f"    {printable(each)}" for each in damage["affects"][:_SHOWN])
        more = damage["affected"] - min(_SHOWN, len(damage["affects"]))
        if more:
            yield f"    and {more:,} more"
    if len(report["damage"]) > _SHOWN:
        yield f"  and {len(report['damage']) - _SHOWN:,} more objects; --json names all"
    if report["damage"]:
        yield f"  next: {Damaged.hint.replace(' ID', ' ' + report['tenant'])}"
