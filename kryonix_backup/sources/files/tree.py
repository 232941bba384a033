"""A tree of files as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import InvalidUrl, SourceMissing, SourceUnreadable
from kryonix_backup.model import Entry, Problem
from kryonix_backup.patterns import Patterns
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.files.folders import Handle, open_root
from kryonix_backup.sources.files.measuring import measure_tree
from kryonix_backup.sources.files.metadata import Owners
from kryonix_backup.sources.files.paths import reason_of, shown
from kryonix_backup.sources.files.reading import Context
from kryonix_backup.sources.files.walk import Walk, list_names
from kryonix_backup.sources.source import Dump, Finding, Item, Size

PART = "tree"


def directory_of(url: str) -> bytes:
    """The directory that a ``files:///dir`` names, of any bytes; raises InvalidUrl."""
    found = urlsplit(url)
    path = unquote_to_bytes(found.path)
    # A line break that is not written as %0A would be dropped, and another directory named.
    broken = any(ord(character) < 32 for character in url) or b"\0" in path
    plain = not (found.netloc or found.query or found.fragment or broken)
    if found.scheme != "files" or not plain or not path.startswith(b"/"):
        raise InvalidUrl(
            f"{url!r} does not name a directory of this machine",
            "Write it like files:///dir, with %3F for a question mark and %23 for a hash sign.",
        )
    return path


class FilesSource:
    """
    The tree below one directory, in one part named ``tree``.

    The first entry is the directory itself, with an empty path. Links are recorded, never
    followed. Raises InvalidUrl and ConfigError for settings without sense.
    """

    def __init__(self, settings: SourceSettings, clock: Clock | None = None) -> None:
        self._directory = directory_of(settings.url)
        self._patterns = Patterns(settings.include, settings.exclude)
        self._one_file_system = settings.one_file_system
        self._clock = SystemClock() if clock is None else clock

    def check(self) -> list[Finding]:
        """Whether the directory is there and can be listed."""
        what = f"the directory {shown(self._directory)}"
        try:
            names = list_names(self._open())
        except (SourceMissing, SourceUnreadable) as error:
            return [Finding(what, False, error.message, error.hint)]
        except OSError as error:
            return [Finding(what, False, reason_of(error), SourceUnreadable.hint)]
        return [
            Finding(what, True, f"it holds {len(names)} entries"),
            Finding(
                "extended attributes of links and devices",
                os.path.isdir("/proc/self/fd"),
                "they are read by way of /proc",
                "Mount /proc for the process that backs up.",
            ),
        ]

    def parts(self) -> tuple[str, ...]:
        """Its one part."""
        return (PART,)

    def dump(self, part: str, since: Iterator[Entry] | None) -> Dump:
        """Everything in the tree; raises SourceMissing, SourceUnreadable for the root alone."""
        if part != PART:
            raise SourceMissing(f"a tree of files has no part {part!r}", f"Its part is {PART!r}.")
        root = self._open()
        try:
            names = list_names(root)
        except OSError as error:
            raise self._unreadable(error) from error
        problems: list[Problem] = []
        context = Context(root, Owners(), problems, self._clock)
        walk = Walk(context, self._patterns, since, one_file_system=self._one_file_system)
        items: Iterator[Item] = walk.items(names)
        return Dump(items, problems)

    def measure(self, part: str) -> Size:
        """A look at the names and sizes only."""
        return measure_tree(self._directory, self._patterns)

    def position(self) -> dict[str, Any]:
        """Nothing: a tree keeps no log."""
        return {}

    def _open(self) -> Handle:
        name = shown(self._directory)
        try:
            return open_root(self._directory)
        except FileNotFoundError as error:
            raise SourceMissing(f"there is no directory {name}") from error
        except NotADirectoryError as error:
            raise SourceMissing(
                f"{name} is not a directory",
                "Name the directory it is in, and the file with --include.",
            ) from error
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> SourceUnreadable:
        return SourceUnreadable(
            f"the directory {shown(self._directory)} cannot be listed: {reason_of(error)}"
        )
