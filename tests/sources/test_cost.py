"""Estimates grow with what there is to do."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, sampled_from

from kryonix_backup.model import MIB, Phase
from kryonix_backup.sources.cost import Load

some = integers(0, 10**9)
PHASES = (Phase.DATABASE_RESTORE, Phase.FILE_STORAGE_RESTORE)


@given(
    load=some, more=integers(1, 10**9), field=sampled_from(Load._fields), phase=sampled_from(PHASES)
)
def test_more_to_do_never_takes_less(load: int, more: int, field: str, phase: Phase) -> None:
    little = Load(load, load, load, load, load)
    much = little._replace(**{field: load + more})

    assert much.seconds(phase) >= little.seconds(phase) >= 0


def test_a_database_takes_longer_than_files_of_its_size() -> None:
    load = Load(10, 100 * MIB)

    assert load.seconds(Phase.DATABASE_RESTORE) > load.seconds(Phase.FILE_STORAGE_RESTORE)


@given(changes=integers(1, 10**9))
def test_what_was_folded_is_never_dearer_than_what_it_was_folded_from(changes: int) -> None:
    raw, folded = Load(1, 1, changes=changes), Load(1, 1, folded=changes)

    assert folded.seconds(Phase.DATABASE_RESTORE) <= raw.seconds(Phase.DATABASE_RESTORE)
