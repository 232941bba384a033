"""
The directory in which runs leave their records until the catalog takes them in.

One small file per run, written beside and renamed, so that a reader sees whole records only.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kryonix_backup.catalog.record import FORMAT, RunRecord, SnapshotRecord

log = logging.getLogger(__name__)


class Letter(NamedTuple):
    """One file of the outbox: a run, and the snapshot that it published."""

    path: Path
    run: RunRecord
    snapshot: SnapshotRecord | None


class Outbox:
    """Records on their way to the catalog; a record that cannot be written is only logged."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, run: RunRecord, snapshot: SnapshotRecord | None = None) -> None:
        """Leave a run's record; never raises: what was backed up does not depend on it."""
        plain = {
            "format": FORMAT,
            "run": run.to_plain(),
            "snapshot": snapshot.to_plain() if snapshot else None,
        }
        # A name of its own for every record: the catalog must not delete a later record of the
        # same run that took the place of the one it read.
        final = self._directory / f"{run.run}-{secrets.token_hex(4)}.json"
        beside = final.with_suffix(".part")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(plain, file)
            beside.rename(final)
        except OSError as error:
            log.warning("run not recorded", extra={"run": run.run, "reason": str(error)})

    def letters(self) -> Iterator[Letter]:
        """
        Every record that waits, in order of name; each may be taken several times.

        A file that holds no record is set aside with the ending ``.bad``, and one that a later
        version wrote is left for that version.
        """
        for path in sorted(self._directory.glob("*.json")):
            try:
                letter = _read(path)
            except FileNotFoundError:
                continue  # another process was faster
            except ValueError as error:
                log.warning("record set aside", extra={"file": path.name, "reason": str(error)})
                path.rename(path.with_suffix(".bad"))
                continue
            if letter is not None:
                yield letter

    def discard(self, letter: Letter) -> None:
        """Let go of a record that the catalog has made durable."""
        letter.path.unlink(missing_ok=True)


def _read(path: Path) -> Letter | None:
    plain = json.loads(path.read_bytes())
    if not isinstance(plain, dict) or not isinstance(plain.get("run"), dict):
        raise ValueError("not a run's record")
    if plain.get("format") != FORMAT:
        return None
    snapshot = plain.get("snapshot")
    return Letter(
        path,
        RunRecord.from_plain(plain["run"]),
        SnapshotRecord.from_plain(snapshot) if isinstance(snapshot, dict) else None,
    )
