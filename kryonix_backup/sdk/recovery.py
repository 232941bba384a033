"""The beginning of a recovery: whether the keys are those of what is stored, and its record."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kryonix_backup.errors import (
    AuditBroken,
    KeyRefused,
    KeyUnusable,
    ObjectMissing,
    RolledBack,
)
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sdk.trail import BEGUN, Trail

log = logging.getLogger(__name__)

RECOVER = "keys recover"


def begin_recovery(trail: Trail, opened: Callable[[], Repository], by: str) -> bool:
    """
    Record that keys are about to be recovered; False where what was given opens none.

    Then it is wrong, or the recovery was cut short and the new master has them already. A chain
    that is broken is in no way. Raises RolledBack, and what `check_own` raises.
    """
    try:
        repository = opened()
    except KeyRefused:
        return False
    check_own(repository)
    try:
        trail.write(repository, RECOVER, BEGUN, by)
    except RolledBack as error:
        error.hint += " Without a master that opens it: recover with an empty KRYONIX_HOME."
        raise
    except AuditBroken as error:
        log.warning("the recovery is not in the audit chain: %s", error.message)
    return True


def check_own(repository: Repository) -> None:
    """
    Raise KeyRefused for keys that open nothing of what is there.

    The public half of an escrow is in the bucket: whoever writes there could wrap keys of their own
    for it, which would then seal every later backup.
    """
    opens = [_opens_audit(repository), _opens_snapshots(repository)]
    if False in opens and True not in opens:
        raise KeyRefused(
            f"the newest keyring at {repository.store.address} opens, but nothing that is there"
            " opens by its keys: none of the tenant's masters wrote it",
            "Find out who can write there. Move that keyring out of the bucket, bring back the one"
            " before it, from another region or a version that the bucket keeps, and recover"
            " again.",
        )


def _opens_audit(repository: Repository) -> bool | None:
    """None where there is no record."""
    try:
        return repository.audit().head().sequence > 0 or None
    except (AuditBroken, ObjectMissing):
        return False


def _opens_snapshots(repository: Repository) -> bool | None:
    """Whether any of them opens; None where there is none, or an operator forbade to open them."""
    found = repository.snapshot_ids()
    try:
        return any(repository.whole_snapshot(each) for each in reversed(found)) if found else None
    except KeyUnusable:
        return None
