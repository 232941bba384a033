from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kryonix_backup.errors import RestoreError
from kryonix_backup.sources.files.folders import look, open_root
from kryonix_backup.sources.files.journal import (
    JOURNAL,
    Begin,
    Close,
    Merge,
    Move,
    Row,
    read_journal,
    write_journal,
)

paths = st.binary(max_size=20)
metas = st.dictionaries(st.sampled_from(["mode", "mtime"]), st.integers(-9, 1 << 62))
rows = st.lists(
    st.one_of(
        st.builds(Move, paths, st.integers(0, (1 << 64) - 1), st.booleans()),
        st.builds(Close, paths, st.integers(0, 0o7777)),
        st.builds(Merge, paths, metas, st.none() | metas),
    )
)


@given(rows)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_journal_reads_the_same_in_both_directions(tmp_path: Path, rows: list[Row]) -> None:
    place = open_root(os.fsencode(tmp_path))
    rows = [Begin([b"/a\xff"]), *rows]

    write_journal(place, rows)

    assert list(read_journal(place)) == rows
    assert list(read_journal(place, backwards=True)) == rows[::-1]


def test_a_journal_that_was_not_written_whole_is_none(tmp_path: Path) -> None:
    place = open_root(os.fsencode(tmp_path))

    def rows() -> Iterator[Row]:
        yield Begin([])
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write_journal(place, rows())

    assert look(place.fd, JOURNAL) is None


def test_a_journal_that_was_tampered_with_is_noticed(tmp_path: Path) -> None:
    place = open_root(os.fsencode(tmp_path))
    write_journal(place, [Begin([]), Move(b"a", 1, False)])
    path = tmp_path / os.fsdecode(JOURNAL)
    path.write_bytes(b"\xff\xff\xff\x7f" + path.read_bytes()[4:-4] + b"\xff\xff\xff\x7f")

    for backwards in (False, True):
        with pytest.raises(RestoreError, match="not what was written"):
            list(read_journal(place, backwards=backwards))
