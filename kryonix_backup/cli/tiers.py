"""`kryonix tiers`: what each tier promises, and whether a file of them is right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.text import duration, table
from kryonix_backup.limits import show_bits, show_bytes


@click.command(epilog="Example: kryonix tiers --file /etc/kryonix/tiers.yaml")
@click.option(
    "--file", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check and show this file instead of the one in use.",
)  # fmt: skip
@answers
def tiers(path: Path | None) -> Answer:
    """
    List the tiers: what they promise, and how much a tenant may take.

    The file in use is the one that KRYONIX_TIERS names, or the one that comes with kryonix-backup.
    One that is wrong is told by its line.
    """
    from kryonix_backup.sdk.limits import load_tiers, read_tiers

    found = read_tiers(path) if path else load_tiers(os.environ)
    rows = [each.to_plain() for each in found]
    plain = {"file": str(found.file), "default": found.default, "tiers": rows}
    head = ("tier", "pool queue", "loses at most", "restored within", "workers", "cores",
            "memory", "bandwidth", "to keep d/w/m/y", "archive")  # fmt: skip
    lines = [f"{found.file}; who names no tier is {found.default}"]
    return Answer(plain, [*lines, *table(head, [_cells(row) for row in rows])])


def _cells(row: dict[str, Any]) -> list[str]:
    limits = row["limits"]
    return [
        row["name"],
        f"{row['name']}/{row['queue']}",
        duration(row["rpo_s"]),
        duration(row["rto_s"]),
        str(limits["workers"]),
        str(limits["cores"]),
        show_bytes(limits["memory_bytes"]),
        show_bits(limits["bandwidth_bits_s"]),
        "/".join(str(count) for count in row["keep"].values()),
        f"{row['archive_years']} years" if row["archive_years"] else "no",
    ]


def terms_lines(row: dict[str, Any]) -> Iterator[str]:
    """What one tenant was promised, for people."""
    limits, keep, keys = row["limits"], row["keep"], row["key_rotation"]
    yield (
        f"  promised: loses at most {duration(row['rpo_s'])}, restored within"
        f" {duration(row['rto_s'])}, available {row['availability_percent']} %"
    )
    yield (
        f"  limits: {limits['cores']} cores, {show_bytes(limits['memory_bytes'])} of memory,"
        f" {show_bits(limits['bandwidth_bits_s'])}, {limits['workers']} backups at once"
    )
    kept = ", ".join(f"{count} {name}" for name, count in keep.items())
    archived = f", {row['archive_years']} years in the archive" if row["archive_years"] else ""
    yield f"  to be kept: {kept}{archived}; not enforced yet, every snapshot stays"
    yield (
        f"  keys replaced after: master {keys['master_days']}, data {keys['data_days']},"
        f" archive {keys['archive_days']} days"
    )
    if row["private_network"]:
        yield "  private endpoint and network"
