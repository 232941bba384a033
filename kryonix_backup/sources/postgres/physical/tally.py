"""Which backups the entries of a snapshot make up, and whether they are whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kryonix_backup.model import Entry
from kryonix_backup.sources.postgres.physical.paths import MANIFEST, backup_name, split


class Tally:
    """Counts entries in order; ``metas`` has what is known of each backup, oldest first."""

    def __init__(self) -> None:
        self.metas: list[Mapping[str, Any]] = []
        self._counts: dict[bytes, int] = {}

    @property
    def names(self) -> list[bytes]:
        """The backups that were met, oldest first."""
        return list(self._counts)

    def add(self, entry: Entry) -> bool:
        """Count the next entry; whether it is the first of its backup."""
        backup, path = split(entry.path)
        new = backup not in self._counts
        self._counts[backup] = self._counts.get(backup, 0) + 1
        if path == MANIFEST:
            self.metas.append(entry.meta)
        return new

    @property
    def whole(self) -> bool:
        """Whether there is a full backup and everything that was made on top of it."""
        expected = [meta.get("entries") for meta in self.metas]
        names = [backup_name(number) for number in range(len(self._counts))]
        return bool(names) and self.names == names and expected == list(self._counts.values())
