"""What is shown of a tenant's keys, and the files of an escrow's shares, which alone are secret."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kryonix_backup.crypto.keyring import Keyring
from kryonix_backup.crypto.stores.escrow import RSA, SHARES
from kryonix_backup.errors import ConfigError
from kryonix_backup.maintenance.key_care import Schedule
from kryonix_backup.model import TenantId
from kryonix_backup.settings import Secret


def key_report(
    tenant: TenantId, keyring: Keyring, store: str, schedule: Schedule, now: datetime
) -> dict[str, Any]:
    """Every key with its state, whom they are wrapped for, and what is due; no secret."""
    escrows = [row for row in keyring.recipients if row["store"] in (SHARES, RSA)]
    return {
        "tenant": tenant,
        "generation": keyring.generation,
        "written": keyring.written.isoformat(),
        "master": {
            "store": store,
            "since": keyring.master_since.isoformat(),
            "due": schedule.master_due(keyring).isoformat(),
        },
        "data_due": schedule.data_due(keyring).isoformat(),
        "archive_due": schedule.archive_due(keyring).isoformat(),
        "due": schedule.due(keyring, now),
        "recipients": [str(row["store"]) for row in keyring.recipients],
        "escrow": [
            {"store": row["store"], "threshold": row.get("threshold"), "count": row.get("count")}
            for row in escrows
        ],
        "keys": [
            {
                "key": record.id,
                "purpose": record.purpose.value,
                "epoch": record.epoch,
                "state": record.state.value,
                "created": record.created.isoformat(),
                "since": record.since.isoformat(),
            }
            for record in sorted(keyring.records, key=lambda each: (each.purpose, each.epoch))
        ],
    }


def write_shares(
    into: Path, tenant: TenantId, shares: Sequence[Secret], threshold: int
) -> list[Path]:
    """Write each share into a file of its own in a new directory; raises ConfigError."""
    try:
        into.mkdir(mode=0o700, parents=True)
        paths = []
        for number, share in enumerate(shares, 1):
            path = into / f"{tenant}-share-{number}-of-{len(shares)}.txt"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(share.reveal() + b"\n")
                file.flush()
                os.fsync(descriptor)
            paths.append(path)
    except OSError as error:
        raise ConfigError(
            f"the shares cannot be written into {into}: {error.strerror}",
            f"Name a directory that is not there yet; {threshold} of its files will open the keys."
            " Where an escrow was cut short, remove its files once the new ones are there.",
        ) from error
    return paths
