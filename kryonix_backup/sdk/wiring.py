"""Settings become objects here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

from kryonix_backup.catalog.outbox import Outbox
from kryonix_backup.clock import Clock
from kryonix_backup.crypto.keys import Owner
from kryonix_backup.crypto.keystore import KeyStore, ManagedKeyStore
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.errors import (
    CatalogUnusable,
    KeyRefused,
    KryonixError,
    RepositoryExists,
    UsageError,
)
from kryonix_backup.model import TenantId
from kryonix_backup.repository.keyrings import mirror
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sdk.limits import Held
from kryonix_backup.settings import (
    RegionSettings,
    RootKey,
    SourceSettings,
    TenantSettings,
    home_directory,
)
from kryonix_backup.sources.registry import open_source
from kryonix_backup.sources.source import PreparedSource, Source
from kryonix_backup.storage.store import ObjectStore

if TYPE_CHECKING:
    from kryonix_backup.catalog.catalog import Catalog


def open_repository(
    tenant: TenantId, region: RegionSettings, root: RootKey, held: Held
) -> Repository:
    """The tenant's repository in a region; raises what `Repository.open` raises."""
    return Repository.open(held.store(region), tenant, open_key_store(root, tenant))


def create_repositories(
    settings: TenantSettings, root: RootKey, held: Held, clock: Clock
) -> dict[str, Repository]:
    """
    The tenant's repository, in each of its regions; where it is there already it stays as it is.

    Raises RepositoryExists where a region holds another, or one that the root does not open.
    """
    # One for all: deriving it from a passphrase is slow on purpose.
    master = open_key_store(root, settings.id)
    if isinstance(master, ManagedKeyStore) and not master.versions():
        master.renew()
    primary = held.store(settings.primary)
    first = _create_repository(settings.id, primary, master, clock)
    made: dict[str, Repository] = {settings.primary.name: first}
    for region in settings.regions:
        if region.name not in made:
            store = held.store(region)
            store.create()
            mirror(primary, store, Owner(first.id, settings.id))
            made[region.name] = Repository.open(store, settings.id, master)
    return made


def _create_repository(
    tenant: TenantId, store: ObjectStore, master: KeyStore, clock: Clock
) -> Repository:
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


def sources_ahead(settings: Iterable[SourceSettings]) -> Thread:
    """
    Import the adapters of these sources in a thread: that of a database takes 0.1 s.

    Meanwhile a passphrase can be stretched, which needs no interpreter. What is wrong with a source
    is told when it is opened.
    """

    def load() -> None:
        for source in settings:
            with suppress(KryonixError, ImportError):
                source_of(source)

    thread = Thread(target=load, name="sources")
    thread.start()
    return thread


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
