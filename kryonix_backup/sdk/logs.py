"""Which of a tenant's sources keep a transaction log, and keeping it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from kryonix_backup.backup.follow import LogReport, Pace, drain_log, follow_log
from kryonix_backup.clock import Clock
from kryonix_backup.errors import ConfigError, KryonixError
from kryonix_backup.model import SourceName
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sdk.wiring import source_of
from kryonix_backup.settings import TenantSettings
from kryonix_backup.sources.source import LogSource

log = logging.getLogger(__name__)


def log_sources(settings: TenantSettings, names: Sequence[str] = ()) -> dict[SourceName, LogSource]:
    """Those of these sources, or of all, that keep a log; raises ConfigError for unknown ones."""
    chosen = [settings.source(name) for name in dict.fromkeys(names)] or settings.sources
    adapters = {source.name: source_of(source) for source in chosen}
    return {name: each for name, each in adapters.items() if isinstance(each, LogSource)}


def needed_log_sources(
    settings: TenantSettings, names: Sequence[str] = ()
) -> dict[SourceName, LogSource]:
    """As `log_sources`; raises ConfigError also where none of them keeps one."""
    found = log_sources(settings, names)
    if not found:
        raise ConfigError(
            "none of this tenant's sources keeps a transaction log",
            "Use --kind full or --kind incremental.",
        )
    return found


def back_up_logs(
    repository: Repository, settings: TenantSettings, names: Sequence[str], clock: Clock
) -> dict[str, LogReport]:
    """
    Keep what was committed by now in those of these sources, or of all, that have a log.

    One that fails holds no other up; what it raised is raised in the end. Raises ConfigError where
    none of them has a log.
    """
    kept: dict[str, LogReport] = {}
    failed: list[KryonixError] = []
    for name, source in needed_log_sources(settings, names).items():
        try:
            kept[name] = drain_log(repository, name, source, clock)
        except KryonixError as error:
            error.source = error.source or name
            failed.append(error)
    for other in failed[1:]:
        log.warning("the log of %s is not kept: %s", other.source, other.message)
    if failed:
        raise failed[0]
    return kept


def follow(
    repository: Repository,
    settings: TenantSettings,
    name: str,
    clock: Clock,
    pace: Pace,
    tell: Callable[[LogReport], None],
) -> LogReport:
    """Keep a source's log until ``pace`` says so; raises ConfigError for one without a log."""
    source = settings.source(name)
    adapter = source_of(source)
    if not isinstance(adapter, LogSource):
        raise ConfigError(
            f"source {source.name} keeps no transaction log",
            "Use --kind full or --kind incremental.",
        )
    return follow_log(repository, source.name, adapter, clock, pace, tell)
