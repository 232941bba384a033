"""A restore to a moment is what the server's own recovery to it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.moments import moments
from tests.services.postgres import VERSIONS

pytestmark = pytest.mark.service


@pytest.mark.parametrize("version", VERSIONS)
def test_random_moments_of_a_mixed_load(version: int, tmp_path: Path) -> None:
    looked = moments(tmp_path, version, version, 3.0, targets=2)

    assert looked.moments == 2
    assert looked.transactions > 10
