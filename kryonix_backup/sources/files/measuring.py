"""A quick look at a tree, for a run's progress only."""

from __future__ import annotations

import os

from kryonix_backup.patterns import Patterns
from kryonix_backup.sources.source import Size


def measure_tree(directory: bytes, patterns: Patterns) -> Size:
    """How much is below a directory; what cannot be looked at is passed over."""
    entries = size = 0
    waiting = [b""]
    while waiting:
        above = waiting.pop()
        try:
            found = list(os.scandir(os.path.join(directory, above)))
        except OSError:
            continue  # the backup itself reports it
        for entry in found:
            path = os.path.join(above, entry.name)
            is_directory = entry.is_dir(follow_symlinks=False)
            if not patterns.all and patterns.excludes(path, directory=is_directory):
                continue
            entries += 1
            if is_directory:
                waiting.append(path)
            elif patterns.includes(path, directory=False):
                try:
                    info = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # it vanished meanwhile
                size += info.st_size if entry.is_file(follow_symlinks=False) else 0
    return Size(entries, size)
