"""When a tenant is backed up, spread so that tenants do not come at once. Pure."""

from __future__ import annotations

import hashlib

from kryonix_backup.model import BackupKind, Tier

# Minutes between incremental backups, and between two looks whether logs are followed: what a tier
# may lose (5, 15, 30 min), less what a run takes. They divide the hour, because a cron line begins
# anew with each.
EVERY_MIN = {Tier.ENTERPRISE: 4, Tier.PROFESSIONAL: 12, Tier.STANDARD: 20}
# Full backups read everything: once a week, in these hours (UTC).
FULL_HOURS = 6


def cron(tenant: str, tier: Tier, kind: BackupKind) -> str:
    """The tenant's own minutes, the same on every machine."""
    digest = hashlib.sha256(f"{tenant} {kind.value}".encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    if kind is BackupKind.INCREMENTAL:
        every = EVERY_MIN[tier]
        return f"{number % every}-59/{every} * * * *"
    number, minute = divmod(number, 60)
    number, hour = divmod(number, FULL_HOURS)
    return f"{minute} {hour} * * {number % 7}"


def daily_cron(tenant: str, what: str) -> str:
    """The tenant's own minute of the day for what is done once a day, after the full backups."""
    number = int.from_bytes(hashlib.sha256(f"{tenant} {what}".encode()).digest()[:8], "big")
    number, minute = divmod(number, 60)
    return f"{minute} {FULL_HOURS + number % (24 - FULL_HOURS)} * * *"


def follow_cron(tier: Tier) -> str:
    """When a pool's logs get a run that follows them, where none does."""
    return f"*/{EVERY_MIN[tier]} * * * *"
