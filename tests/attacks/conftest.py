"""The two tenants, made once; what an attack does to their buckets is undone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from kryonix_backup.testing.s3_servers import S3Server
from tests.attacks.town import Tenant
from tests.services.s3 import seaweedfs

__all__ = ["seaweedfs"]

KEY = bytes(range(32))


class Town(NamedTuple):
    """A is attacked, or attacks; B is whose data must stay B's."""

    a: Tenant
    b: Tenant


@pytest.fixture(scope="session")
def built(seaweedfs: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Town:
    work = tmp_path_factory.mktemp("town")
    return Town(*(Tenant(seaweedfs, work, name, KEY) for name in ("acme", "beta")))


@pytest.fixture
def town(built: Town) -> Iterator[Town]:
    yield built
    built.a.mend()
