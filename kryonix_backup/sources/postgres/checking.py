"""What a server lacks."""

from __future__ import annotations

from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.source import Finding


def check(address: Address) -> list[Finding]:
    """Whether the database can be reached."""
    return []
