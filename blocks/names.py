"""Names of blocks, artifacts and deployments that belong to one tenant."""

from __future__ import annotations

from kryonix_backup.model import BackupKind


def qualified(tenant: str, name: str) -> str:
    """
    The tenant's own name for something; no two tenants and names share one.

    Both may hold hyphens, so that ``a`` and ``b-c`` would meet ``a-b`` and ``c``: a name with a
    hyphen gets its length behind it. Without one the last word begins with a letter.
    """
    plain = f"{tenant}-{name}"
    return f"{plain}-{len(name)}" if "-" in name else plain


def backup_deployment(tenant: str, kind: BackupKind) -> str:
    """The name by which Prefect runs that backup."""
    return f"backup-tenant/{tenant}-{kind.value}"
