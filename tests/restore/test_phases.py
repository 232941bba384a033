"""What a failure in each phase means is decided in one place."""

from __future__ import annotations

import pytest

from kryonix_backup.model import Phase
from kryonix_backup.restore.phases import CRITICAL, is_critical


@pytest.mark.parametrize("phase", list(Phase))
def test_critical_phases_stop_a_restore_and_strict_makes_every_one_critical(phase: Phase) -> None:
    assert is_critical(phase, strict=False) is (phase in CRITICAL)
    assert is_critical(phase, strict=True)


def test_the_databases_and_the_two_ends_are_critical() -> None:
    assert [phase.value for phase in sorted(CRITICAL)] == [1, 2, 6]
