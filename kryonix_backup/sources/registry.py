"""From a source's settings, or a target's address, to the adapter that serves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from kryonix_backup.errors import InvalidUrl
from kryonix_backup.model import Phase, RestoreId
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.files.target import FilesTarget
from kryonix_backup.sources.files.tree import FilesSource, directory_of
from kryonix_backup.sources.source import Source, Target


class _Adapter(NamedTuple):
    """One kind of source, in both directions."""

    phase: Phase
    source: Callable[[SourceSettings], Source]
    target: Callable[[str, RestoreId, bool], Target]


def _postgres_source(settings: SourceSettings) -> Source:
    from kryonix_backup.sources.postgres.database import PostgresSource  # its driver is not light

    return PostgresSource(settings)


def _postgres_target(url: str, restore: RestoreId, overwrite: bool) -> Target:  # noqa: FBT001 - as an adapter is called
    from kryonix_backup.sources.postgres.target import PostgresTarget

    return PostgresTarget(url, restore, overwrite=overwrite)


_ADAPTERS = {
    "files": _Adapter(
        Phase.FILE_STORAGE_RESTORE,
        FilesSource,
        lambda url, restore, overwrite: FilesTarget(
            directory_of(url), restore, overwrite=overwrite
        ),
    ),
    "postgresql": _Adapter(Phase.DATABASE_RESTORE, _postgres_source, _postgres_target),
}


def open_source(settings: SourceSettings) -> Source:
    """The source at that address; raises InvalidUrl and ConfigError."""
    return _adapter(settings.url).source(settings)


def open_target(url: str, restore_id: RestoreId, *, overwrite: bool) -> Target:
    """The address as the target of one restore; raises InvalidUrl."""
    return _adapter(url).target(url, restore_id, overwrite)


def phase_of(url: str) -> Phase:
    """The phase of a restore in which a target of that kind is filled; raises InvalidUrl."""
    return _adapter(url).phase


def _adapter(url: str) -> _Adapter:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidUrl("a source's address is not a URL") from error
    scheme = parts.scheme
    if ":" in parts.netloc.rpartition("@")[0]:  # then no part of it is repeated
        raise InvalidUrl(
            "a source's address holds a password, which it must not",
            "Take it out of the URL: settings are shown, logged and kept in every snapshot.",
        )
    if scheme not in _ADAPTERS:
        known = ", ".join(f"{name}://" for name in _ADAPTERS)
        raise InvalidUrl(
            f"{url!r} does not name a source of a known kind",
            f"Write it like files:///dir; the kinds are {known}.",
        )
    return _ADAPTERS[scheme]
