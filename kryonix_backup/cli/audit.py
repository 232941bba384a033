"""`kryonix audit verify`, `show` and `accept`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import MOMENT, connected, region_options, tenant_argument
from kryonix_backup.cli.text import duration, moment, printable, table
from kryonix_backup.errors import AuditBroken, RolledBack, UsageError

if TYPE_CHECKING:
    from kryonix_backup.sdk.client import AuditReport, ShownRecord

Regions = tuple[tuple[str, str], ...]

_SHOWN = 20
_CODES = {"ok": 0, "broken": AuditBroken.exit_code, "rolled back": RolledBack.exit_code}


class _TenantFirst(click.Group):
    """``audit ID verify``: the tenant stands before the command, as in every other command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and len(args) == 1:
            return super().parse_args(ctx, [])  # a shell asks what may come next
        named = args and args[0] not in self.commands and not args[0].startswith("-")
        if named and len(args) == 1:
            raise UsageError(
                f"nothing is said to be done with {args[0]!r}",
                f"Run 'kryonix audit {args[0]} verify', 'show' or 'accept'.",
            )
        if named or (len(args) > 1 and args[1] in self.commands):
            args = [args[1], args[0], *args[2:]]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["ID", "COMMAND", "[OPTIONS]"]


@click.group(
    cls=_TenantFirst,
    epilog="Examples: kryonix audit acme verify; kryonix audit acme show --action restore",
)
def audit() -> None:
    """Who did what with a tenant's backups, and the proof that nobody has changed the record."""


@audit.command(epilog="Example: kryonix audit acme verify --json")
@tenant_argument
@region_options
@answers
def verify(tenant: str, regions: Regions, from_region: str | None) -> Answer:
    """
    Prove that the chain is what was written, and say where it is not.

    Exits 58 when a record was changed, moved, inserted or is missing, and 57 when this machine has
    seen records that are not there any more.
    """
    return _report(tenant, connected(tenant, regions, from_region).verify_audit())


@audit.command(epilog="Example: kryonix audit acme show --since 2026-11-01 --action restore")
@tenant_argument
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True,
    help="At most so many, the newest.",
)  # fmt: skip
@click.option("--since", type=MOMENT, help="Only what was done at this time or later.")
@click.option(
    "--action",
    metavar="ACTION",
    help="Only this, such as backup, restore, cat or 'source prepare'.",
)
@region_options
@answers
def show(
    tenant: str,
    limit: int,
    since: datetime | None,
    action: str | None,
    regions: Regions,
    from_region: str | None,
) -> Answer:
    """Show what was done, by whom and from where, oldest first."""
    client = connected(tenant, regions, from_region)
    records = client.audit_records(limit=limit, since=since, action=action)
    plain = {"tenant": tenant, "records": [each.to_plain() for each in records]}
    return Answer(plain, _record_lines(records))


@audit.command(
    epilog="Example: kryonix audit acme accept --reason 'bucket brought back from 12 November'"
)
@tenant_argument
@click.option("--reason", required=True, help="What the inquiry has found; it is in the record.")
@region_options
@answers
def accept(tenant: str, reason: str, regions: Regions, from_region: str | None) -> Answer:
    """
    Go on with a chain that is broken or was set back, after an inquiry.

    Nothing is mended: a new record names what is missing or changed and why it is accepted, and
    verify tells of it for ever.
    """
    return _report(tenant, connected(tenant, regions, from_region).accept_audit(reason))


def _report(tenant: str, report: AuditReport) -> Answer:
    plain = {"tenant": tenant, **report.to_plain()}
    return Answer(plain, _report_lines(tenant, report), _CODES[report.status])


def _report_lines(tenant: str, report: AuditReport) -> Iterator[str]:
    yield (
        f"{report.status}: {report.records:,} records, {report.bundles:,} bundles,"
        f" {report.signatures:,} signatures checked in {duration(report.duration_s)}"
    )
    yield f"  head: {report.head.sequence} {report.head.hash.hex()}"
    yield f"  public key: {report.public}"
    yield from (f"  {printable(str(each))}" for each in report.findings[:_SHOWN])
    if len(report.findings) > _SHOWN:
        yield f"  and {len(report.findings) - _SHOWN:,} more; --json names all"
    yield from (f"  accepted: {printable(str(each))}" for each in report.accepted[:_SHOWN])
    yield from (f"  {each}" for each in report.remarks)
    if report.findings:
        yield (
            "  next: find out who did it, and bring those objects back from a copy; or go on, after"
            f" an inquiry, with 'kryonix audit {tenant} accept --reason TEXT'"
        )


def _record_lines(records: list[ShownRecord]) -> Iterator[str]:
    if not records:
        yield "no records"
        return
    head = ("number", "time", "actor", "action", "object", "result", "from", "reason")
    yield from table(head, (_row(each.record.to_plain()) for each in records))


def _row(plain: dict[str, Any]) -> tuple[str, ...]:
    place = f"{plain['host']}/{plain['pid']}"
    actor, user = plain["actor"], plain["user"]
    return (
        str(plain["sequence"]),
        moment(plain["time"]),
        actor if actor == user else f"{actor} ({user})",
        plain["action"],
        plain["object"],
        plain["result"],
        f"{place} {plain['program']}" + (f" {plain['run']}" if plain["run"] else ""),
        plain["reason"],
    )
