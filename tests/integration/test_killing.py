"""A few rounds of `killing`; `script/campaign kill --rounds 200` runs many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import killing
from tests.integration.stores import Place

pytestmark = pytest.mark.service


@pytest.mark.timeout(180)
def test_a_backup_killed_at_any_moment_costs_nothing_in_a_directory(
    here: Place, tmp_path: Path
) -> None:
    assert killing.run(6, here, seed=1, work=tmp_path).rounds == 6


@pytest.mark.timeout(180)
def test_a_backup_killed_at_any_moment_costs_nothing_in_a_bucket(
    bucket: Place, tmp_path: Path
) -> None:
    assert killing.run(4, bucket, seed=2, work=tmp_path).rounds == 4
