"""Fixtures of the tests that run the whole command."""

from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.testing.s3_servers import S3Server
from tests.integration.command import Command
from tests.integration.stores import Place
from tests.services.s3 import TENANT_A, seaweedfs

__all__ = ["seaweedfs"]


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """A directory for repositories."""
    return Place.in_directory(tmp_path / "stores")


@pytest.fixture
def bucket(seaweedfs: S3Server) -> Place:
    """A bucket of SeaweedFS for repositories."""
    return Place.in_bucket(seaweedfs, TENANT_A)


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    """One after the other."""
    found = request.getfixturevalue("here" if request.param == "directory" else "bucket")
    assert isinstance(found, Place)
    return found


@pytest.fixture
def machine(tmp_path: Path) -> Command:
    """A machine with a key file and no other secret."""
    return Command.with_key_file(tmp_path / "home")
