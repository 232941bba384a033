"""
Session fixtures of real S3 servers; a ``conftest.py`` imports those it wants.

``from tests.services.s3 import ministack, seaweedfs  # noqa: F401``
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from kryonix_backup.testing.s3_servers import S3Server, start_ministack, start_seaweedfs

TENANT_A = "tenant-a-data"
TENANT_B = "tenant-b-data"

_numbers = itertools.count()


def new_prefix() -> str:
    """A prefix that no other test uses."""
    return f"test-{next(_numbers)}"


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS, with the buckets `TENANT_A` and `TENANT_B` and credentials for each alone."""
    with start_seaweedfs(tmp_path_factory.mktemp("seaweedfs"), [TENANT_A, TENANT_B]) as server:
        yield server


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """MiniStack; its root's credentials are the only ones."""
    with start_ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server
