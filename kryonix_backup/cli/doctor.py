"""`kryonix doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.text import printable

if TYPE_CHECKING:
    from kryonix_backup.sdk.doctor import Check

_SIGNS = {"pass": "ok  ", "fail": "FAIL", "unknown": "?   "}


@click.command(epilog="Example: kryonix doctor --json")
@answers
def doctor() -> Answer:
    """
    Look for what would stop a backup: modules, home, catalog, and every tenant.

    Exits with the code of the first failure, 0 when everything passes.
    """
    from kryonix_backup.sdk.doctor import examine

    checks = list(examine())
    failed = [check for check in checks if check.status != "pass"]
    plain = {
        "status": "pass" if not failed else "fail",
        "checks": [check.to_plain() for check in checks],
    }
    code = next((check.exit_code for check in failed if check.exit_code), int(bool(failed)))
    return Answer(plain, _lines(checks), code)


def _lines(checks: list[Check]) -> Iterator[str]:
    for check in checks:
        yield printable(f"{_SIGNS[check.status]}  {check.what}: {check.evidence}")
        if check.status != "pass":
            yield printable(f"      next: {check.next}")
