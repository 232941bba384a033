"""Where the objects of a repository are, and the plain `format.json`."""

from __future__ import annotations

import json
import re
import secrets
from datetime import datetime
from typing import NamedTuple

from kryonix_backup.errors import Damaged, FormatUnsupported
from kryonix_backup.model import (
    ChainId,
    PackId,
    RepositoryId,
    RestoreId,
    SnapshotId,
    SourceName,
)

FORMAT = "format.json"
KEYS = "keys/"
PACKS = "packs/"
INDEX = "index/"
SNAPSHOTS = "snapshots/"
INTENTS = "intents/"
RESTORES = "restores/"
LOGS = "logs/"
DESTROYED = "destroyed.json"
"""The record that the tenant's keys were destroyed."""
AUDIT = "audit/"
AUDIT_BUNDLES = "audit/bundles/"

_MAGIC = "kryonix-backup repository"
_REPOSITORY = re.compile(r"[0-9a-f]{32}", re.ASCII)
FORMAT_VERSION = 1


class Format(NamedTuple):
    """What `format.json` says."""

    repository: RepositoryId
    created: datetime

    def to_bytes(self) -> bytes:
        """The object's content."""
        return json.dumps(
            {
                "magic": _MAGIC,
                "version": FORMAT_VERSION,
                "repository": self.repository,
                "created": self.created.isoformat(),
                "hash": "blake3",
            },
            indent=1,
        ).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> Format:
        """Raises Damaged, and FormatUnsupported for what a newer version wrote."""
        try:
            stored = json.loads(body)
            version, names_by = stored["version"], stored["hash"]
            created = datetime.fromisoformat(stored["created"])
            repository = RepositoryId(str(stored["repository"]))
            valid = stored["magic"] == _MAGIC and created.tzinfo is not None
            valid = valid and _REPOSITORY.fullmatch(repository) is not None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Damaged(f"{FORMAT} is not that of a repository") from error
        if not valid:
            raise Damaged(f"{FORMAT} is not that of a repository")
        if version != FORMAT_VERSION or names_by != "blake3":
            raise FormatUnsupported(
                f"{FORMAT} says format {version} ({names_by}), not {FORMAT_VERSION} (blake3)"
            )
        return cls(repository, created)


def new_repository_id() -> RepositoryId:
    """A random id; it is part of every key, so objects of two repositories never mix."""
    return RepositoryId(secrets.token_hex(16))


def keyrings_of(repository: RepositoryId) -> str:
    """Where the keyrings of a repository are; of two that race to be made, each has its own."""
    return f"{KEYS}{repository}/"


def keyring_name(repository: RepositoryId, generation: int) -> str:
    """The name of a keyring; the names of generations sort as they do."""
    return f"{keyrings_of(repository)}{generation:08d}"


def pack_name(pack: PackId) -> str:
    """The name of a pack, spread over 256 prefixes."""
    return f"{PACKS}{pack[:2]}/{pack}"


def snapshot_name(snapshot: SnapshotId) -> str:
    """The name of a snapshot's manifest."""
    return f"{SNAPSHOTS}{snapshot}"


def new_index_name() -> str:
    """A random name for a segment of the index."""
    return f"{INDEX}{secrets.token_hex(16)}"


def journal_name(restore: RestoreId, step: int) -> str:
    """The name of one record of a restore's journal."""
    return f"{RESTORES}{restore}/{step:04d}"


def log_name(source: SourceName, chain: ChainId, number: int) -> str:
    """The name of one segment of a source's transaction log."""
    return f"{LOGS}{source}/{chain}/{number:08d}"


def audit_name(sequence: int) -> str:
    """The name of one record of the audit chain."""
    return f"{AUDIT}{sequence:012d}"


def audit_bundle_name(last: int) -> str:
    """The name of the bundle of the audit records that end with this one."""
    return f"{AUDIT_BUNDLES}{last:012d}"
