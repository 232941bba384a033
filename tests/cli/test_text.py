"""Figures that people read, and nothing that commands their terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.cli.text import duration, moment, moment_lines, printable, size, table


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 20, "3.0 MiB"), (1 << 50, "1.0 PiB"),
     (1 << 60, "1024.0 PiB")],
)  # fmt: skip
def test_sizes_are_binary(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 m 00 s"), (125, "2 m 05 s"), (3720, "1 h 02 m")],
)
def test_durations_are_short(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_moment_is_to_the_second() -> None:
    assert moment("2026-11-23T21:40:05.123456+00:00") == "2026-11-23 21:40:05Z"


@given(st.text())
def test_what_is_shown_commands_no_terminal(text: str) -> None:
    assert printable(text).isprintable()


def test_an_escape_is_shown_as_text() -> None:
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert printable("çédille") == "çédille"


def test_columns_stand_under_their_heads() -> None:
    assert list(table(("name", "size"), [("a", "10 B"), ("longer", "5 B")])) == [
        "name    size",
        "a       10 B",
        "longer   5 B",
    ]
    assert list(table(("name",), [])) == ["name"]


@pytest.mark.parametrize("cell", ["20261123t225223z-1a29", "2026-11-23 22:52:27Z", "3 blind mice"])
def test_what_only_begins_like_a_figure_stands_to_the_left(cell: str) -> None:
    assert list(table(("what",), [(cell,), ("1" * 30 + "x",)]))[1] == cell


def test_moments_are_told_with_their_gaps_and_what_to_do() -> None:
    log = {"ranges": [{"from": "a", "to": "b"}], "gaps": [], "needs_full": False}
    gap = {"from": "b", "to": "c", "reason": "it\x1b is gone"}
    broken = {"ranges": [], "gaps": [gap, {**gap, "from": None, "to": None}], "needs_full": True}

    assert list(moment_lines("acme", {"db": log})) == ["db: any moment from a to b"]
    assert list(moment_lines("acme", {"db": broken})) == [
        "db: no moment can be restored with --at yet",
        "db: none after b until c: it\\x1b is gone",
        "db: none at all: it\\x1b is gone",
        (
            "  next: 'kryonix backup acme --source db --kind log', then a full backup of it:"
            " every moment from then on can be restored again"
        ),
    ]
    assert list(moment_lines("acme", {})) == []
