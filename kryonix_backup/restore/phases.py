"""What each phase of a restore consists of, and what a failure in it means."""

from __future__ import annotations

from kryonix_backup.model import Phase

CRITICAL = frozenset(
    {
        Phase.INFRASTRUCTURE_PREPARATION,
        Phase.DATABASE_RESTORE,
        Phase.VALIDATION_AND_FINALIZATION,
    }
)


def is_critical(phase: Phase, *, strict: bool) -> bool:
    """
    Whether a failure in the phase stops the restore and rolls everything back.

    Another phase's failure rolls that phase back alone, and the restore goes on as degraded.
    """
    return strict or phase in CRITICAL
