"""A tenant's settings out of a file of YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kryonix_backup.errors import ConfigError

_SETTINGS = {
    "id", "tier", "regions", "sources", "residency", "transfers", "isolation", "limits", "keys",
}  # fmt: skip
_SHOWN = {"promised"}  # what 'tenant show' adds: it follows from the tier


def read_tenant_file(path: Path) -> dict[str, Any]:
    """The settings in the file; raises ConfigError where it is not of their form."""
    import yaml  # takes as long to import as the rest of the command

    try:
        found = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} does not hold a tenant's settings")
    found = {name: value for name, value in found.items() if name not in _SHOWN}
    unknown = sorted(str(name) for name in set(found) - _SETTINGS)
    if unknown:
        raise ConfigError(f"{path}: a tenant has no setting {unknown[0]!r}")
    _check_forms(path, found)
    return found


def _check_forms(path: Path, found: dict[str, Any]) -> None:
    for name in ("regions", "sources", "transfers"):
        rows = found.get(name, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError(f"{path}: {name} is not a list of settings")
    for name in ("isolation", "limits", "keys"):
        if not isinstance(found.get(name, {}), dict):
            raise ConfigError(f"{path}: {name} is not a mapping of names to settings")
    if not isinstance(found.get("residency", []), list):
        raise ConfigError(f"{path}: residency is not a list")
