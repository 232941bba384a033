from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.testing.postgres import start_postgres
from tests.services.postgres import VERSIONS
from tests.sources.postgres.physical.owned import Owned


@pytest.fixture(scope="session")
def _newest() -> Iterator[Owned]:
    """A cluster of one tenant, of a version that makes incremental backups."""
    with start_postgres(VERSIONS[-1], {"summarize_wal": "on"}) as server:
        yield Owned(server)


@pytest.fixture(scope="session")
def _oldest() -> Iterator[Owned]:
    with start_postgres(VERSIONS[0]) as server:
        yield Owned(server)


@pytest.fixture
def owned(_newest: Owned, tmp_path: Path) -> Iterator[Owned]:
    """A tenant with a cluster of its own; its log was never kept."""
    yield _newest.anew(tmp_path)
    _newest.drop_slot()


@pytest.fixture
def older(_oldest: Owned, tmp_path: Path) -> Iterator[Owned]:
    """The same on a version that knows only full backups."""
    yield _oldest.anew(tmp_path)
    _oldest.drop_slot()
