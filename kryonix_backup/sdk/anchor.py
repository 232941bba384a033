"""
What this machine has seen of a tenant's audit chains and keyrings, kept outside of repositories.

Whoever can write to a bucket can set it back to an older state, and nothing in it would tell. The
anchor does: the newest record that was seen must still be there, and so must the newest keyring,
which says what may be done with each key.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kryonix_backup.durable import write_whole
from kryonix_backup.errors import ConfigError, RolledBack
from kryonix_backup.model import RepositoryId, TenantId
from kryonix_backup.repository.audit_record import Head

_FORMAT = 1


class Anchor:
    """The newest record seen of each of one tenant's chains, by the address of its repository."""

    def __init__(self, home: Path, tenant: TenantId) -> None:
        self._path = home / "anchors" / f"{tenant}.json"

    def seen(self, address: str, repository: RepositoryId, generation: int = 0) -> Head | None:
        """
        The newest record seen there; None where this machine has seen none.

        Raises RolledBack where another repository was there, or a later keyring than that
        ``generation``; ConfigError where the file is no anchor.
        """
        row = self._read().get(address)
        if row is None:
            return None
        if row["repository"] != repository:
            raise RolledBack(
                f"{address} holds another repository of this tenant than the one that this machine"
                " has seen there"
            )
        known = int(row.get("keyring", 0))
        if known > generation:
            raise RolledBack(
                f"the keys of {address} were set back: keyring {known}, which this machine has seen"
                f" there, is missing, and {generation} is the newest"
            )
        return Head(int(row["sequence"]), bytes.fromhex(row["hash"]))

    def advance(
        self, address: str, repository: RepositoryId, head: Head, generation: int = 0
    ) -> None:
        """Remember a record and a keyring, unless newer ones are known; raises OSError."""
        with self._locked():
            rows = self._read()
            known = rows.get(address, {"repository": None, "sequence": 0})
            row = {"repository": repository, "sequence": head.sequence, "hash": head.hash.hex()}
            if known["repository"] == repository:
                generation = max(generation, known.get("keyring", 0))
                if known["sequence"] >= head.sequence:
                    row = known
            row = {**row, "keyring": generation}
            if row != known:
                rows[address] = row
                self._write(rows)

    def forget(self, address: str) -> None:
        """Know nothing of that address any more; raises ConfigError where the file cannot go."""
        try:
            with self._locked():
                rows = self._read()
                if rows.pop(address, None) is not None:
                    self._write(rows)
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be written: {error.strerror}",
                "Let this user write below KRYONIX_HOME; until then what was seen still holds.",
            ) from error

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            plain = json.loads(self._path.read_bytes())
            rows: dict[str, dict[str, Any]] = plain["chains"]
            for row in rows.values():
                bytes.fromhex(row["hash"]), int(row["sequence"]), row["repository"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{self._path} does not say what was seen of the audit chain",
                "Find out who changed it; then move it away, and it is made anew.",
            ) from error
        if plain.get("format") != _FORMAT:
            raise ConfigError(f"{self._path} was written by another version", "Use that version.")
        return rows

    def _write(self, rows: dict[str, dict[str, Any]]) -> None:
        write_whole(self._path, json.dumps({"format": _FORMAT, "chains": rows}, indent=1).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only writer: of two that read and write back, one would lose the other's row."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._path.with_suffix(".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
