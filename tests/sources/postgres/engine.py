"""A tenant whose one source is a database, with a repository in a directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kryonix_backup.model import SourceName, TenantId, Tier
from kryonix_backup.sdk.client import Client, RestoreReport, RestoreRequest
from kryonix_backup.settings import (
    PRIMARY,
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)

KEY = b"a key that only tests have, 32 bytes or more"
ROOT = RootKey(key_file=Secret(KEY))


def tenant_of(url: str, work: Path, tenant: str = "acme") -> Client:
    """A tenant with the source ``db`` at that address."""
    region = RegionSettings(PRIMARY, f"file://{work / tenant}")
    source = SourceSettings(SourceName("db"), url)
    settings = TenantSettings(TenantId(tenant), Tier("standard"), (region,), (source,))
    return Client.onboard(settings, ROOT)


def restored(client: Client, to: str | None = None, **request: Any) -> RestoreReport:
    """The newest snapshot, restored to another address or in place."""
    targets: Mapping[str, str] = {} if to is None else {"db": to}
    return client.restore(RestoreRequest(to=targets, **request))
