"""Which backups the entries of a snapshot make up, and whether they are whole."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from kryonix_backup.model import Entry
from kryonix_backup.sources.postgres.physical.paths import (
    MANIFEST,
    backup_name,
    goes_on_from,
    split,
)


class Tally:
    """
    Counts entries in order.

    ``metas`` has what is known of each backup, oldest first, and ``counts`` its entries.
    """

    def __init__(self) -> None:
        self.metas: list[Mapping[str, Any]] = []
        self.counts: dict[bytes, int] = {}

    @property
    def names(self) -> list[bytes]:
        """The backups that were met, oldest first."""
        return list(self.counts)

    def add(self, entry: Entry) -> bool:
        """Count the next entry; whether it is the first of its backup."""
        backup, path = split(entry.path)
        new = backup not in self.counts
        self.counts[backup] = self.counts.get(backup, 0) + 1
        if path == MANIFEST:
            self.metas.append(entry.meta)
        return new

    @property
    def whole(self) -> bool:
        """Whether there is a full backup and everything that was made on top of it."""
        numbers = [meta.get("number") for meta in self.metas]
        chained = all(
            isinstance(after, int) and goes_on_from(after) == before
            for before, after in pairwise(numbers)
        )
        return (
            numbers[:1] == [0]
            and chained
            and self.names == [backup_name(number) for number in numbers if number is not None]
            and [meta.get("entries") for meta in self.metas] == list(self.counts.values())
        )
