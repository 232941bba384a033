"""That a repository is in no tree that is backed up, and no restore is written into one."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kryonix_backup.errors import ConfigError
from kryonix_backup.patterns import Patterns
from kryonix_backup.settings import RegionSettings, SourceSettings, TenantSettings
from kryonix_backup.sources.files.tree import directory_of
from kryonix_backup.storage.location import Directory, parse_location


def check_apart(source: SourceSettings, region: RegionSettings) -> None:
    """Raise ConfigError where a repository would be backed up into itself, and grow for ever."""
    place = parse_location(region.url)
    if not isinstance(place, Directory) or not source.url.startswith("files:"):
        return
    tree = os.path.realpath(directory_of(source.url))
    inside = os.path.relpath(os.path.realpath(os.fsencode(place.path)), tree)
    parts = inside.split(b"/")
    if parts[0] == b"..":
        return
    patterns = Patterns((), source.exclude)
    above = (b"/".join(parts[:count]) for count in range(1, len(parts) + 1))
    if not any(patterns.excludes(path, directory=True) for path in above):
        raise ConfigError(
            f"region {region.name} is inside source {source.name}: {region.url} is below"
            f" {source.url}, and every backup would hold the ones before",
            f"Use another directory, or --exclude {source.name}=/{os.fsdecode(inside)}/.",
        )


def check_targets_apart(settings: TenantSettings, targets: Mapping[str, str]) -> None:
    """Raise ConfigError where a restore would write files among the tenant's backups."""
    for name, target in targets.items():
        if not target.startswith("files:"):
            continue
        path = os.path.realpath(directory_of(target))
        for region in settings.regions:
            place = parse_location(region.url)
            if not isinstance(place, Directory):
                continue
            repository = os.path.realpath(os.fsencode(place.path))
            if os.path.commonpath((path, repository)) == repository:
                raise ConfigError(
                    f"the target of source {name} is inside region {region.name}: {target} is in"
                    f" {region.url}, where the backups are",
                    f"Restore to another directory with --to {name}=files:///DIR.",
                )
