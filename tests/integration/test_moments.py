"""A restore to a moment is what the server's own recovery to it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.moments import Life, moments
from tests.services.postgres import VERSIONS

pytestmark = pytest.mark.service


@pytest.mark.parametrize("version", VERSIONS)
def test_random_moments_of_a_mixed_load(version: int, tmp_path: Path) -> None:
    """Of one version while the log is fetched, of the other while its follower is killed."""
    kills = 2 if version == max(VERSIONS) else 0
    life = Life(seed=version, seconds=2.0, many=5000, large=1, kills=kills)

    found = moments(tmp_path, version, life, targets=2)

    assert found["moments"] == 2
    assert found["transactions"] > 10
    assert found.get("kills", 0) == kills
