"""
Which entries of a tree are meant, in gitignore's own syntax.

Without `include` all are. With it, only what fits it, and the directories above that.
What fits `exclude` is left out, whatever `include` says, and an excluded directory is not entered:
nothing below it can be brought back by another pattern, as in git.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kryonix_backup.errors import ConfigError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


class Patterns:
    """The include and exclude patterns of one source; raises ConfigError for one without sense."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = _spec(include) if include else None
        self._exclude = _spec(exclude) if exclude else None
        self.all = self._include is None and self._exclude is None
        """Whether there are none at all."""

    def excludes(self, path: bytes, *, directory: bool) -> bool:
        """Whether the entry is left out with everything below it."""
        return self._exclude is not None and _fits(self._exclude, path, directory=directory)

    def includes(self, path: bytes, *, directory: bool) -> bool:
        """Whether the entry itself is wanted."""
        return self._include is None or _fits(self._include, path, directory=directory)


def _spec(lines: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError as error:
            raise ConfigError(
                f"the pattern {line!r} cannot be understood",
                "Write patterns as in a .gitignore file.",
            ) from error
    return GitIgnoreSpec.from_lines(lines)


def _fits(spec: GitIgnoreSpec, path: bytes, *, directory: bool) -> bool:
    # No pattern can hold a line break, and the dot of its expression would not fit one.
    text = os.fsdecode(path).replace("\n", "\ufffd")
    return spec.match_file(text + "/" if directory else text)
