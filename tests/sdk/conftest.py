"""A tenant with a few files, on a machine of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from kryonix_backup.clock import SystemClock
from kryonix_backup.model import RegionName, SourceName, TenantId, Tier
from kryonix_backup.sdk.limits import Held
from kryonix_backup.settings import (
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)
from tests.services.s3 import seaweedfs  # noqa: F401
from tests.services.softhsm import softhsm, token  # noqa: F401

KEY = bytes(range(32))  # a key file needs no slow derivation


@dataclass(frozen=True)
class Machine:
    """A home, a tenant's files and its regions, all in one temporary directory."""

    root: Path
    env: dict[str, str]
    settings: TenantSettings

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def key(self) -> RootKey:
        return RootKey(key_file=Secret(KEY))

    @property
    def held(self) -> Held:
        return Held.of(self.settings, self.env, SystemClock())

    def region(self, name: str) -> RegionSettings:
        return RegionSettings(RegionName(name), f"file://{self.root / name}")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "deep" / "letter.txt").write_text("dear reader")
    (tmp_path / "files" / "numbers").write_bytes(bytes(range(256)) * 4096)
    env = {"KRYONIX_HOME": str(tmp_path / "home"), "KRYONIX_KEY_FILE": str(tmp_path / "key")}
    regions = tuple(
        RegionSettings(RegionName(name), f"file://{tmp_path / name}")
        for name in ("primary", "secondary")
    )
    source = SourceSettings(SourceName("files"), f"files://{tmp_path / 'files'}")
    settings = TenantSettings(TenantId("acme"), Tier("professional"), regions, (source,))
    return Machine(tmp_path, env, settings)
