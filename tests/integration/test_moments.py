"""A restore to a moment is what the server's own recovery to it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.moments import Life, moments
from tests.services.postgres import VERSIONS

pytestmark = pytest.mark.service


@pytest.mark.parametrize("version", VERSIONS)
def test_random_moments_of_a_mixed_load(version: int, tmp_path: Path) -> None:
    life = Life(seed=version, seconds=3.0, many=5000, large=1)

    found = moments(tmp_path, version, life, targets=2)

    assert found["moments"] == 2
    assert found["transactions"] > 10


def test_moments_around_kills_of_the_follower(tmp_path: Path) -> None:
    life = Life(seed=1, seconds=3.0, many=5000, large=1, kills=2)

    found = moments(tmp_path, max(VERSIONS), life, targets=2)

    assert found["kills"] == 2
    assert found["moments around a kill"] == 1
