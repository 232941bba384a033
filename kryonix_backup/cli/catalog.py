"""`kryonix catalog history` and `catalog rebuild`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import named_regions, region_options, tenant_argument
from kryonix_backup.cli.text import duration, moment, printable, size, table

if TYPE_CHECKING:
    from kryonix_backup.sdk.history import RunRecord


@click.group(epilog="Example: kryonix catalog history acme")
def catalog() -> None:
    """
    What this machine remembers of runs, and how to bring it back.

    The catalog is a cache of what the repositories say: nothing is lost with it.
    """


@catalog.command(epilog="Example: kryonix catalog history acme --limit 10")
@tenant_argument
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many."
)
@answers
def history(tenant: str, limit: int) -> Answer:
    """List a tenant's backups, restores and verifications, newest first."""
    from kryonix_backup.sdk.history import read_history

    runs = read_history(tenant, limit)
    plain = {"tenant": tenant, "sessions": [run.to_plain() for run in runs]}
    return Answer(plain, _history_lines(runs))


def _history_lines(runs: list[RunRecord]) -> Iterator[str]:
    if not runs:
        yield "no runs yet"
        return
    rows = [
        (
            moment(run.started),
            run.operation,
            run.kind,
            run.status,
            duration(run.duration_s),
            size(run.bytes_read),
            size(run.bytes_stored),
            run.run,
        )
        for run in runs
    ]
    head = ("started", "operation", "kind", "status", "time", "read", "stored", "run")
    for line, error in zip(table(head, rows), [None, *(run.error for run in runs)], strict=True):
        yield line
        if error:
            yield printable(f"    {error}")


@catalog.command(epilog="Example: kryonix catalog rebuild acme --region primary=s3://acme-backup")
@tenant_argument
@region_options
@answers
def rebuild(tenant: str, regions: tuple[tuple[str, str], ...], from_region: str | None) -> Answer:
    """
    Fill the catalog from a tenant's repository.

    With --region the tenant is registered again too, with the settings of its newest snapshot.
    """
    from kryonix_backup.sdk.history import rebuild as rebuild_catalog

    rebuilt = rebuild_catalog(tenant, named_regions(regions), from_region=from_region)
    line = f"tenant {rebuilt.settings.id}: {rebuilt.snapshots:,} snapshots are in the catalog"
    return Answer(rebuilt.to_plain(), [line])
