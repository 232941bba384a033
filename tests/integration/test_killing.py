"""A few rounds of `killing`; `script/campaign kill --rounds 200` runs many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration import killing
from tests.integration.stores import Place

pytestmark = pytest.mark.service


def test_a_backup_killed_at_any_moment_costs_nothing(
    here: Place, bucket: Place, tmp_path: Path
) -> None:
    """In a directory and in a bucket, side by side."""
    with ThreadPoolExecutor(2) as pool:
        directory = pool.submit(killing.run, 4, here, 1, tmp_path / "directory")
        s3 = pool.submit(killing.run, 3, bucket, 2, tmp_path / "s3")

        assert (directory.result().rounds, s3.result().rounds) == (4, 3)
