"""When a tenant is backed up, spread so that tenants do not come at once. Pure."""

from __future__ import annotations

import hashlib

from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.following import SEGMENT_EVERY_S
from kryonix_backup.sdk.limits import Terms

# Of what a tier may lose, a fifth is left to the run itself.
_SHARE_OF_RPO = 0.8
# A cron line begins anew with each hour.
_DIVIDES_THE_HOUR = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
# Full backups read everything: once a week, in these hours (UTC).
FULL_HOURS = 6


def every_minutes(tier: Terms) -> int:
    """Minutes between incremental backups, and between two looks whether logs are followed."""
    most = tier.rpo_s / 60 * _SHARE_OF_RPO
    return max(each for each in _DIVIDES_THE_HOUR if each <= most)


def segment_seconds(tier: Terms) -> float:
    """How often a log that is followed is cut: a fifth of what the tier may lose, at most."""
    return min(SEGMENT_EVERY_S, tier.rpo_s / 5)


def cron(tenant: str, tier: Terms, kind: BackupKind) -> str:
    """The tenant's own minutes, the same on every machine."""
    digest = hashlib.sha256(f"{tenant} {kind.value}".encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    if kind is BackupKind.INCREMENTAL:
        every = every_minutes(tier)
        return f"{number % every}-59/{every} * * * *"
    number, minute = divmod(number, 60)
    number, hour = divmod(number, FULL_HOURS)
    return f"{minute} {hour} * * {number % 7}"


def daily_cron(tenant: str, what: str) -> str:
    """The tenant's own minute of the day for what is done once a day, after the full backups."""
    number = int.from_bytes(hashlib.sha256(f"{tenant} {what}".encode()).digest()[:8], "big")
    number, minute = divmod(number, 60)
    return f"{minute} {FULL_HOURS + number % (24 - FULL_HOURS)} * * *"


def follow_cron(tier: Terms) -> str:
    """When a pool's logs get a run that follows them, where none does."""
    return f"*/{every_minutes(tier)} * * * *"
