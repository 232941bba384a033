"""Where the repositories of these tests are: a directory, or a bucket of a real server."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

from kryonix_backup.crypto.stores.root import master_from
from kryonix_backup.model import RegionName, TenantId
from kryonix_backup.repository.repository import Repository
from kryonix_backup.settings import PRIMARY, RegionSettings, RootKey, Secret
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import ANYWHERE
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.s3_servers import S3Server
from tests.integration.command import Command

_numbers = itertools.count()


class Place(NamedTuple):
    """A place for repositories: the start of their URLs, and the variables that open it."""

    url: str
    environment: dict[str, str]

    @classmethod
    def in_directory(cls, directory: Path) -> Place:
        """Directories below this one."""
        return cls(f"file://{directory}/{{name}}", {})

    @classmethod
    def in_bucket(cls, server: S3Server, bucket: str, endpoint: str | None = None) -> Place:
        """Prefixes of a bucket, reached by another endpoint where one is given."""
        url = server.url(bucket, "PREFIX").replace("PREFIX", "{name}")
        url = url.replace(server.endpoint, endpoint or server.endpoint)
        return cls(url, server.buckets[bucket].environment())

    def new(self) -> str:
        """The URL of a region that nobody has used."""
        return self.url.format(name=f"repository-{next(_numbers)}")


def store_of(url: str, command: Command) -> ObjectStore:
    """The store at a region's URL, as this user reaches it."""
    return open_store(RegionSettings(RegionName(PRIMARY), url), command.secret, ANYWHERE)


def repository_of(url: str, command: Command, tenant: str = "acme") -> Repository:
    """The repository at a region's URL, opened with this user's key file."""
    master = master_from(RootKey(key_file=Secret(command.plain_key)))
    return Repository.open(store_of(url, command), TenantId(tenant), master)


def object_sizes(store: ObjectStore, prefix: str = "") -> dict[str, int]:
    """Name and size of every object."""
    return {info.name: info.size for info in store.list(prefix)}


def bytes_stored_twice(repository: Repository) -> int:
    """Raw bytes of chunks that are in more than one of the repository's packs."""
    holder: dict[bytes, str] = {}
    twice = 0
    for chunk, (pack, where) in repository.load_index():
        if holder.setdefault(chunk, pack.id) != pack.id:
            twice += where.length
    return twice
