"""
One file of settings per tenant, ``ID.json``, readable by its owner alone.

A tenant id has no underscore, so that no two ids meet where a service turns hyphens into
underscores; nor upper-case letters, so that no two meet on a file system that ignores case.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from kryonix_backup.crypto.stores.location import HsmLocation, parse_key_store
from kryonix_backup.durable import sync, write_beside
from kryonix_backup.errors import ConfigError, TenantExists, TenantUnknown
from kryonix_backup.model import TenantId, tenant_id
from kryonix_backup.settings import TenantSettings, home_directory
from kryonix_backup.storage.location import Directory, parse_location
from kryonix_backup.storage.residency import Residency, check_region


class Registry:
    """The tenants registered in one directory; every change is whole and durable, or not made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def at(cls, env: Mapping[str, str]) -> Self:
        """The registry under ``$KRYONIX_HOME``."""
        return cls(home_directory(env) / "tenants")

    def ids(self) -> list[TenantId]:
        """Every registered tenant, in order of id."""
        try:
            found = sorted(os.listdir(self._directory))  # a glob hides that it may not look
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unusable(self._directory, error) from error
        names = [name for name in found if name.endswith(".json") and not name.startswith(".")]
        return sorted(tenant_id(name.removesuffix(".json")) for name in names)

    def load(self, tenant: str) -> TenantSettings:
        """A tenant's settings; raises InvalidName, TenantUnknown and ConfigError."""
        path = self._path(tenant)
        try:
            plain = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise TenantUnknown(f"tenant {tenant} is not registered here") from error
        except OSError as error:
            raise _unusable(path, error) from error
        except ValueError as error:
            raise _damaged(path, tenant, f"it is not JSON: {error}") from error
        if not isinstance(plain, dict) or plain.get("id") != tenant:
            raise _damaged(path, tenant, f"it does not hold the settings of tenant {tenant}")
        try:
            return TenantSettings.from_plain(plain)
        except ConfigError as error:
            raise _damaged(path, tenant, error.message) from error

    def check(self, settings: TenantSettings) -> None:
        """
        Whether the tenant may be registered beside the others; changes nothing.

        Raises InvalidUrl, ResidencyViolation, and ConfigError where a region's address is used
        twice or is inside another one's, by this tenant or another one: a repository belongs to one
        tenant and one region. So it is with a master in an HSM or KMS, which the tenant's own
        rotation destroys.
        """
        others = [self.load(name) for name in self.ids() if name != settings.id]
        _check_masters(settings, others)
        taken: dict[str, str] = {}
        for other in others:
            for region in other.regions:
                taken[_address(region.url)] = f"region {region.name} of tenant {other.id}"
        for region in settings.regions:
            check_region(region, Residency.of(settings))
            url = _address(region.url)
            for there, who in taken.items():
                if f"{url}/".startswith(f"{there}/") or f"{there}/".startswith(f"{url}/"):
                    where = "has the address of" if url == there else "is inside, or around,"
                    raise ConfigError(
                        f"region {region.name} of tenant {settings.id} {where} {who}: {region.url}",
                        "Give every tenant and every region a bucket or directory of its own.",
                    )
            taken[url] = f"its region {region.name}"

    def add(self, settings: TenantSettings) -> None:
        """Register a new tenant; raises TenantExists, and what `check` raises."""
        path = self._path(settings.id)
        if path.exists():
            raise TenantExists(f"tenant {settings.id} is registered already")
        self.check(settings)
        beside = self._write_beside(path, settings)
        try:
            os.link(beside, path)
        except FileExistsError as error:
            raise TenantExists(f"tenant {settings.id} is registered already") from error
        except OSError as error:
            raise _unusable(path, error) from error
        finally:
            beside.unlink()
        sync(self._directory)

    def replace(self, settings: TenantSettings) -> None:
        """Register a tenant whether it is known or not; raises what `check` raises."""
        path = self._path(settings.id)
        self.check(settings)
        beside = self._write_beside(path, settings)
        try:
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _unusable(path, error) from error
        sync(self._directory)

    def remove(self, tenant: str) -> None:
        """Forget a tenant; its repositories stay as they are. Raises TenantUnknown."""
        path = self._path(tenant)
        try:
            path.unlink()
        except FileNotFoundError as error:
            raise TenantUnknown(f"tenant {tenant} is not registered here") from error
        except OSError as error:
            raise _unusable(path, error) from error
        sync(self._directory)

    def _path(self, tenant: str) -> Path:
        return self._directory / f"{tenant_id(tenant)}.json"

    def _write_beside(self, path: Path, settings: TenantSettings) -> Path:
        body = json.dumps(settings.to_plain(), indent=2) + "\n"
        try:
            return write_beside(path, body.encode())
        except OSError as error:
            raise _unusable(path, error) from error


def _check_masters(settings: TenantSettings, others: Iterable[TenantSettings]) -> None:
    taken = {master: f"tenant {other.id}" for other in others for master in _masters(other)}
    for master in _masters(settings):
        if who := taken.get(master):
            raise ConfigError(
                f"the master key {'/'.join(master)} of tenant {settings.id} is that of {who} too",
                "Give every tenant, and a second master, a label or alias of its own; without one"
                " the key is named for the tenant.",
            )
        taken[master] = "its other key store"


def _masters(settings: TenantSettings) -> Iterator[tuple[str, ...]]:
    """What names each master in an HSM or KMS, whatever the module is called that leads there."""
    for url in (settings.keys.store, settings.keys.second):
        if url:
            place = parse_key_store(url, settings.id)
            if isinstance(place, HsmLocation):
                yield place.token, place.label
            else:
                yield place.endpoint or place.region, place.alias


def _address(url: str) -> str:
    """One spelling for every way to write the same address; raises InvalidUrl."""
    place = parse_location(url)
    if isinstance(place, Directory):
        return f"file://{place.path.resolve()}"
    server = urlsplit(place.endpoint)
    port = server.port or {"http": 80, "https": 443}[server.scheme]
    path = f"{place.name}/{place.prefix}" if place.prefix else place.name
    return f"s3://{server.hostname}:{port}/{path}"


def _damaged(path: Path, tenant: str, why: str) -> ConfigError:
    error = ConfigError(
        f"{path} cannot be used: {why}",
        "Correct it; or move it away, and bring it back with 'kryonix catalog rebuild ID --region"
        " NAME=URL'.",
    )
    error.tenant = tenant
    return error


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used: {error.strerror}",
        "Set KRYONIX_HOME to a directory that this user may write to.",
    )
