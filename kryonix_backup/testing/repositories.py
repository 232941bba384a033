"""Repositories in memory, and stores that remember or change what they hold, for tests."""

from __future__ import annotations

from dataclasses import replace

from kryonix_backup.backup.report import BackupReport
from kryonix_backup.backup.run import back_up_source, begin, publish
from kryonix_backup.clock import Clock
from kryonix_backup.crypto.stores.root import RootKeyStore, master_from
from kryonix_backup.events import Listener, quiet
from kryonix_backup.model import BackupKind, Blob, SourceName, TenantId, Tier
from kryonix_backup.repository.repository import Repository
from kryonix_backup.settings import (
    PRIMARY,
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)
from kryonix_backup.sources.source import Source
from kryonix_backup.storage.memory import MemoryStore
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.clock import FixedClock

ACME = TenantId("acme")
FILES = SourceName("files")


class RecordingStore(MemoryStore):
    """A `MemoryStore` that remembers in ``puts`` the names it was given, in order."""

    def __init__(self, address: str = "memory://") -> None:
        super().__init__(address)
        self.parallel = 3  # as many as a network would have
        self.puts: list[str] = []

    def put(self, name: str, body: Blob) -> None:
        """Write and remember."""
        super().put(name, body)
        self.puts.append(name)

    def names(self, prefix: str = "") -> list[str]:
        """The names of what it holds, sorted."""
        return sorted(name for name in self.objects if name.startswith(prefix))

    def copy(self) -> RecordingStore:
        """A store of its own that holds the same."""
        other = RecordingStore(self.address)
        other.objects.update(self.objects)
        return other


def key_file(fill: int = 7) -> RootKeyStore:
    """A master key out of a key file: it needs no time to derive."""
    return master_from(RootKey(key_file=Secret(bytes([fill]) * 32)))


def new_repository(
    store: ObjectStore | None = None, tenant: TenantId = ACME, clock: Clock | None = None
) -> Repository:
    """A fresh repository under `key_file`, in memory unless a store is given."""
    return Repository.create(store or RecordingStore(), tenant, key_file(), clock or FixedClock())


def reopened(store: ObjectStore, tenant: TenantId = ACME) -> Repository:
    """The repository that is there, as another process sees it."""
    return Repository.open(store, tenant, key_file())


def settings_of(*names: str, compression: str = "adaptive") -> TenantSettings:
    """Settings of acme with sources of these names."""
    sources = [SourceSettings(SourceName(name), f"memory://{name}") for name in names]
    return TenantSettings(
        ACME,
        Tier("standard"),
        (RegionSettings(PRIMARY, "memory://"),),
        tuple(replace(source, compression=compression) for source in sources),
    )


def back_up(
    repository: Repository,
    source: Source,
    *,
    name: str = FILES,
    kind: BackupKind = BackupKind.FULL,
    listener: Listener = quiet,
    clock: Clock | None = None,
) -> BackupReport:
    """One source, from `begin` to `publish`."""
    settings = settings_of(name)
    clock = clock or FixedClock()
    session = begin(repository, kind, clock)
    result = back_up_source(repository, session, settings.sources[0], source, listener, clock)
    return publish(repository, session, [result], settings, clock)
