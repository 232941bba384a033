"""`kryonix source check`, `prepare` and `release`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import connected, tenant_argument
from kryonix_backup.cli.text import printable, table
from kryonix_backup.errors import SourceError

if TYPE_CHECKING:
    from kryonix_backup.sdk.client import Finding

F = TypeVar("F", bound=Callable[..., Any])

_COMMAND = re.compile(r"(kryonix [a-z ]+) ID( NAME)?\b")


def _source_argument(command: F) -> F:
    return click.argument("name", metavar="NAME")(command)


@click.group(epilog="Example: kryonix source check acme database")
def source() -> None:
    """Check what is backed up, and prepare its server for following its log."""


@source.command(epilog="Example: kryonix source check acme database")
@tenant_argument
@_source_argument
@answers
def check(tenant: str, name: str) -> Answer:
    """
    Look at what would stop a backup of a source, and say how to mend it.

    Changes nothing. Exits with 60 where anything fails, 0 when everything passes.
    """
    findings = [
        finding._replace(
            evidence=_to_be_typed(finding.evidence, tenant, name),
            mend=_to_be_typed(finding.mend, tenant, name),
        )
        for finding in connected(tenant, (), None).check_source(name)
    ]
    whole = all(finding.passed for finding in findings)
    plain = {
        "tenant": tenant,
        "source": name,
        "status": "pass" if whole else "fail",
        "findings": [finding._asdict() for finding in findings],
    }
    return Answer(plain, _lines(findings), 0 if whole else SourceError.exit_code)


def _to_be_typed(text: str, tenant: str, name: str) -> str:
    """With the commands in it as they are for this source."""
    return _COMMAND.sub(lambda found: f"{found[1]} {tenant}{f' {name}' * bool(found[2])}", text)


def _lines(findings: list[Finding]) -> Iterator[str]:
    rows = [
        ("ok" if finding.passed else "FAIL", finding.what, finding.evidence) for finding in findings
    ]
    yield from table(("", "what", "found"), rows)
    for finding in findings:
        if not finding.passed and finding.mend:
            yield printable(f"{finding.what}: {finding.mend}")


@source.command(epilog="Example: kryonix source prepare acme database --dry-run")
@tenant_argument
@_source_argument
@click.option("--dry-run", is_flag=True, help="Print what would be run, and change nothing.")
@click.option(
    "--replica-identity-full", "consent", is_flag=True,
    help="Give it to tables without a primary key, whose rows could not be changed otherwise.",
)  # fmt: skip
@answers
def prepare(tenant: str, name: str, *, dry_run: bool, consent: bool) -> Answer:
    """
    Make a source's server keep its transaction log.

    Makes only what is missing. From then on the server keeps its log until it is backed up.
    """
    client = connected(tenant, (), None)
    steps = client.prepare_source(name, consent=consent, dry_run=dry_run)
    plain = {"tenant": tenant, "source": name, "dry_run": dry_run, "steps": steps}
    if dry_run:
        return Answer(plain, _sql(steps))
    how = f"in {len(steps)} steps" if steps else "and nothing was missing"
    said = f"source {name} of {tenant} is prepared, {how}"
    return Answer(plain, [said, f"next: kryonix backup {tenant}"])


def _sql(steps: Iterable[str]) -> Iterator[str]:
    """Statements to be pasted, line by line as they are."""
    for step in steps:
        yield from map(printable, f"{step};".split("\n"))


@source.command(epilog="Example: kryonix source release acme database")
@tenant_argument
@_source_argument
@answers
def release(tenant: str, name: str) -> Answer:
    """Remove everything that prepare made; the log that the server kept is given up."""
    removed = connected(tenant, (), None).release_source(name)
    lines = [printable(f"removed {what}") for what in removed]
    plain = {"tenant": tenant, "source": name, "removed": removed}
    return Answer(plain, lines or ["there was nothing to remove"])
