"""What was folded is told as a segment."""

from __future__ import annotations

from kryonix_backup.sources.source import folded_segment
from kryonix_backup.testing.clock import NOON


def test_what_was_folded_reaches_from_the_rows_to_its_place_in_the_log() -> None:
    position = {
        "log": "7/8", "at": 300, "time": NOON.isoformat(), "folded": {"after": 100, "changes": 5},
    }  # fmt: skip
    header = folded_segment(position)

    assert header is not None
    assert (header.start, header.end, header.changes, header.last) == (100, 300, 5, NOON)


def test_a_dump_has_folded_nothing() -> None:
    assert folded_segment({}) is None
    assert folded_segment({"log": "7/8", "at": 300, "time": NOON.isoformat()}) is None
