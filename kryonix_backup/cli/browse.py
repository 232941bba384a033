"""`kryonix snapshots`, `diff`, `ls` and `cat`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import connected, region_options, tenant_argument
from kryonix_backup.cli.text import moment, moment_lines, printable, size, table

if TYPE_CHECKING:
    from kryonix_backup.sdk.client import Change, Client, Listed, Snapshot

Regions = tuple[tuple[str, str], ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIGNS = {"added": "+", "removed": "-", "modified": "M", "metadata": "m"}


@click.command(epilog="Example: kryonix snapshots acme --json")
@tenant_argument
@click.option(
    "--moments", is_flag=True,
    help="Also say which moments can be restored with --at; reads the head of every segment.",
)  # fmt: skip
@region_options
@answers
def snapshots(tenant: str, moments: bool, regions: Regions, from_region: str | None) -> Answer:  # noqa: FBT001 - as click calls it
    """List a tenant's snapshots, oldest first."""
    client = connected(tenant, regions, from_region)
    plain: dict[str, Any] = {"tenant": tenant}
    rows = plain["snapshots"] = [_snapshot(snapshot) for snapshot in client.snapshots()]
    logs: dict[str, Any] = {}
    if moments:
        logs = {name: each.to_plain() for name, each in client.restorable().items()}
        plain["restorable"] = logs
    return Answer(plain, chain(_snapshot_lines(rows), moment_lines(tenant, logs)))


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot without the roots of its trees, and with problems counted."""
    plain = snapshot.to_plain()
    del plain["settings"]
    for source in plain["sources"].values():
        source["problems"] = len(source["problems"])
        source["parts"] = [part["name"] for part in source["parts"]]
    incomplete = any(source["problems"] for source in plain["sources"].values())
    return {**plain, "status": "incomplete" if incomplete else "complete"}


def _snapshot_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        yield "no snapshots yet"
        return
    yield from table(
        ("snapshot", "finished", "kind", "status", "sources", "size", "stored"),
        [
            (
                row["id"],
                moment(row["finished"]),
                row["kind"],
                row["status"],
                ", ".join(row["sources"]),
                size(sum(source["bytes_total"] for source in row["sources"].values())),
                size(sum(source["bytes_stored"] for source in row["sources"].values())),
            )
            for row in rows
        ],
    )


@click.command(epilog="Example: kryonix diff acme 20261122t02 latest")
@tenant_argument
@click.argument("a")
@click.argument("b", default="latest")
@region_options
@answers
def diff(tenant: str, a: str, b: str, regions: Regions, from_region: str | None) -> Answer:
    """
    Show what changed from snapshot A to snapshot B.

    + added, - removed, M modified, m only its metadata. B is the latest where it is left out.
    """
    client = connected(tenant, regions, from_region)
    one, two = client.snapshot(a).id, client.snapshot(b).id
    changes = client.diff(one, two)
    plain = {"tenant": tenant, "a": one, "b": two}
    return Answer(
        {**plain, "changes": (change.to_plain() for change in changes)},
        (_change_line(change) for change in changes),
    )


def _change_line(change: Change) -> str:
    sizes = [size(each) for each in (change.size_a, change.size_b) if each is not None]
    return f"{_SIGNS[change.status]} {printable(change.path)}  ({' -> '.join(sizes)})"


@click.command(epilog="Example: kryonix ls acme latest documents/2026")
@tenant_argument
@click.argument("snapshot", default="latest")
@click.argument("path", default="")
@region_options
@answers
def ls(tenant: str, snapshot: str, path: str, regions: Regions, from_region: str | None) -> Answer:
    """
    List what a snapshot holds at PATH and below.

    PATH is SOURCE/path/in/source; without it everything is listed.
    """
    client = connected(tenant, regions, from_region)
    found = client.snapshot(snapshot).id
    entries = client.ls(found, path)
    plain = {"tenant": tenant, "snapshot": found, "path": path}
    return Answer(
        {**plain, "entries": (entry.to_plain() for entry in entries)},
        (_entry_line(entry) for entry in entries),
    )


def _entry_line(entry: Listed) -> str:
    plain = entry.to_plain()
    modified = ""
    if "mtime_ns" in plain:
        modified = _time_of(plain["mtime_ns"])
    target = f" -> {plain['target']}" if "target" in plain else ""
    return printable(
        f"{plain['kind']:8} {plain.get('mode', '-'):>4} {size(plain['size']):>10} {modified:20} "
        f" {plain['path']}{target}"
    )


def _time_of(nanoseconds: int) -> str:
    try:
        return moment(_EPOCH + timedelta(microseconds=nanoseconds // 1000))
    except OverflowError:
        return "out of range"


@click.command(epilog="Example: kryonix cat acme latest documents/contract.txt > contract.txt")
@tenant_argument
@click.argument("snapshot")
@click.argument("path")
@region_options
@answers
def cat(tenant: str, snapshot: str, path: str, regions: Regions, from_region: str | None) -> Answer:
    """
    Write the content of one file to stdout.

    PATH is SOURCE/path/in/source. With --json the content is read but not printed: its size and
    SHA-256 are.
    """
    client = connected(tenant, regions, from_region)
    found = client.snapshot(snapshot).id
    return Answer(lambda: _digest(client, found, path), client.cat(found, path))


def _digest(client: Client, snapshot: str, path: str) -> dict[str, Any]:
    count, digest = 0, hashlib.sha256()
    for piece in client.cat(snapshot, path):
        count += len(piece)
        digest.update(piece)
    return {
        "tenant": client.tenant,
        "snapshot": snapshot,
        "path": path,
        "size": count,
        "sha256": digest.hexdigest(),
    }
