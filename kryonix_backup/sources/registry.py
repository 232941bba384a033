"""From a source's settings, or a target's address, to the adapter that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from kryonix_backup.addresses import holds_secret
from kryonix_backup.errors import InvalidUrl
from kryonix_backup.model import Blob, Phase, RestoreId
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.files.target import FilesTarget
from kryonix_backup.sources.files.tree import FilesSource, directory_of
from kryonix_backup.sources.source import CountLog, LogCounts, Source, Target


class _Adapter(NamedTuple):
    """One kind of source, in both directions; one of them may be of another kind."""

    phase: Phase
    source: Callable[[SourceSettings], Source] | None
    target: Callable[[str, RestoreId, bool], Target] | None
    count_log: CountLog | None = None


def _postgres_source(settings: SourceSettings) -> Source:
    from kryonix_backup.sources.postgres.database import PostgresSource  # its driver is not light

    return PostgresSource(settings)


def _postgres_target(url: str, restore: RestoreId, overwrite: bool) -> Target:  # noqa: FBT001 - as an adapter is called
    from kryonix_backup.sources.postgres.restoring.target import PostgresTarget

    return PostgresTarget(url, restore, overwrite=overwrite)


def _cluster_source(settings: SourceSettings) -> Source:
    from kryonix_backup.sources.postgres.physical.cluster import PhysicalSource

    return PhysicalSource(settings)


def _cluster_target(url: str, restore: RestoreId, _overwrite: bool) -> Target:  # noqa: FBT001
    from kryonix_backup.sources.postgres.physical.target import PhysicalTarget

    return PhysicalTarget(url, restore)


def _postgres_count(body: Iterable[Blob]) -> LogCounts:
    from kryonix_backup.sources.postgres.decoding.counting import count_log

    return count_log(body)


_ADAPTERS = {
    "files": _Adapter(
        Phase.FILE_STORAGE_RESTORE,
        FilesSource,
        lambda url, restore, overwrite: FilesTarget(
            directory_of(url), restore, overwrite=overwrite
        ),
    ),
    "postgresql": _Adapter(
        Phase.DATABASE_RESTORE, _postgres_source, _postgres_target, _postgres_count
    ),
    "postgresql+physical": _Adapter(Phase.DATABASE_RESTORE, _cluster_source, None),
    "pgdata": _Adapter(Phase.DATABASE_RESTORE, None, _cluster_target),
}


def open_source(settings: SourceSettings) -> Source:
    """The source at that address; raises InvalidUrl and ConfigError."""
    source = _adapter(settings.url).source
    if source is None:
        raise InvalidUrl(
            f"{settings.url!r} is where a cluster is restored to, and no source",
            "Write the source like postgresql+physical://user@host:5432/.",
        )
    return source(settings)


def open_target(url: str, restore_id: RestoreId, *, overwrite: bool) -> Target:
    """The address as the target of one restore; raises InvalidUrl."""
    target = _restorable(url).target
    assert target is not None
    return target(url, restore_id, overwrite)


def phase_of(url: str) -> Phase:
    """The phase of a restore in which a target of that kind is filled; raises InvalidUrl."""
    return _restorable(url).phase


def _restorable(url: str) -> _Adapter:
    adapter = _adapter(url)
    if adapter.target is None:
        raise InvalidUrl(
            f"{url!r} is a running server, and no cluster is restored in place of one",
            "Name an empty directory, or one that is not there, with --to NAME=pgdata:///path.",
        )
    return adapter


def log_counter(url: str) -> CountLog | None:
    """How a log of a source at that address is read; None where it keeps none, or is not known."""
    try:
        return _adapter(url).count_log
    except InvalidUrl:
        return None


def _adapter(url: str) -> _Adapter:
    if holds_secret(url):  # then no part of it is repeated
        raise InvalidUrl(
            "a source's address holds a password, which it must not",
            "Take it out of the URL: settings are shown, logged and kept in every snapshot.",
        )
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise InvalidUrl("a source's address is not a URL") from error
    if scheme not in _ADAPTERS:
        known = ", ".join(f"{name}://" for name in _ADAPTERS)
        raise InvalidUrl(
            f"{url!r} does not name a source of a known kind",
            f"Write it like files:///dir; the kinds are {known}.",
        )
    return _ADAPTERS[scheme]
