"""What was done to make a tenant's regions its own alone, as commands tell it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kryonix_backup.cli.text import printable

if TYPE_CHECKING:
    from kryonix_backup.sdk.isolation import Isolation


def isolation_plain(done: Sequence[Isolation]) -> dict[str, Any]:
    """One key of a command's JSON."""
    return {"isolated": [each.to_plain() for each in done]}


def isolation_lines(done: Sequence[Isolation]) -> Iterator[str]:
    """The same for people."""
    if not done:
        yield "no region was made the tenant's alone: no operator's credentials are set"
    for each in done:
        made = f" (made: {', '.join(each.made)})" if each.made else ""
        yield printable(f"  region {each.region} is {each.owner}'s alone{made}")
        yield from (f"    proved: {proof}" for proof in each.proved)
        yield from (f"    note: {remark}" for remark in each.remarks)
