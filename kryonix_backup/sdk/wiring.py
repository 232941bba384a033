"""Settings become objects here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kryonix_backup.catalog.outbox import Outbox
from kryonix_backup.clock import Clock
from kryonix_backup.crypto.stores.root import RootKeyStore, master_from
from kryonix_backup.errors import CatalogUnusable, KeyRefused, RepositoryExists, UsageError
from kryonix_backup.repository.repository import Repository
from kryonix_backup.settings import (
    RegionSettings,
    RootKey,
    SourceSettings,
    TenantSettings,
    home_directory,
)
from kryonix_backup.sources.registry import open_source
from kryonix_backup.sources.source import PreparedSource, Source
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import Residency

if TYPE_CHECKING:
    from kryonix_backup.catalog.catalog import Catalog


def open_repository(
    settings: TenantSettings, region: RegionSettings, root: RootKey, env: Mapping[str, str]
) -> Repository:
    """The tenant's repository in a region; raises what `open_store` and `Repository.open` raise."""
    store = open_store(region, env, Residency.of(settings))
    return Repository.open(store, settings.id, master_from(root))


def create_repositories(
    settings: TenantSettings, root: RootKey, env: Mapping[str, str], clock: Clock
) -> dict[str, Repository]:
    """
    The tenant's repository in each of its regions; one that is there already stays as it is.

    Raises RepositoryExists where a region holds a repository that the root does not open.
    """
    master = master_from(root)  # one for all: deriving it from a passphrase is slow on purpose
    return {
        region.name: _create_repository(settings, region, master, env, clock)
        for region in settings.regions
    }


def _create_repository(
    settings: TenantSettings,
    region: RegionSettings,
    master: RootKeyStore,
    env: Mapping[str, str],
    clock: Clock,
) -> Repository:
    store, tenant = open_store(region, env, Residency.of(settings)), settings.id
    try:
        return Repository.create(store, tenant, master, clock)
    except RepositoryExists:
        try:
            return Repository.open(store, tenant, master)
        except KeyRefused as error:
            raise RepositoryExists(
                f"{store.address} holds a repository that the key of tenant {tenant} does not open",
                "Use an empty bucket or directory, or the passphrase that the repository was made"
                " with.",
            ) from error


def source_of(settings: SourceSettings) -> Source:
    """The adapter of a source; raises InvalidUrl."""
    return open_source(settings)


def prepared_source(settings: SourceSettings) -> PreparedSource:
    """The adapter of a source whose server is to be prepared; raises UsageError for others."""
    adapter = source_of(settings)
    if not isinstance(adapter, PreparedSource):
        raise UsageError(
            f"source {settings.name} keeps no transaction log: there is nothing to prepare",
            "Back it up with 'kryonix backup ID'.",
        )
    return adapter


def outbox(env: Mapping[str, str]) -> Outbox:
    """Where this machine's runs leave their records."""
    return Outbox(home_directory(env) / "outbox")


def open_catalog(env: Mapping[str, str]) -> Catalog:
    """
    The catalog at ``$KRYONIX_CATALOG_URL``, or in a file under ``$KRYONIX_HOME``.

    Its tables are brought up to date and waiting records are taken in. Raises CatalogUnusable.
    """
    from kryonix_backup.catalog.catalog import Catalog  # SQLAlchemy takes half a second to import

    home = home_directory(env)
    url = env.get("KRYONIX_CATALOG_URL")
    if not url:
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise CatalogUnusable(
                f"{home} cannot be made for the catalog: {error.strerror}",
                "Set KRYONIX_HOME to a directory that this user may write to.",
            ) from error
        url = f"sqlite:///{home / 'catalog.db'}"
    return Catalog.open(url, outbox(env))
