"""Twenty tenants in one cluster: no object of one holds a byte of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.tenants import side_by_side
from tests.services.postgres import VERSIONS

pytestmark = pytest.mark.service


def test_twenty_tenants_of_one_cluster_share_no_byte(tmp_path: Path) -> None:
    (drains,) = side_by_side(tmp_path, VERSIONS[-1], many=20, restores=2)

    assert (drains.threads, drains.changes) == (20, 20 * 2)
