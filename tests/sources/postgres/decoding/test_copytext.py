"""Rows go to COPY as its text, whatever their values are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.errors import Damaged
from kryonix_backup.sources.postgres.decoding import pgoutput
from kryonix_backup.sources.postgres.decoding.copytext import row_blocks, value_blocks
from kryonix_backup.sources.postgres.decoding.pgoutput import UNCHANGED, Row

values = st.one_of(st.none(), st.binary(max_size=8), st.sampled_from((b"\\N", b"\t\n\r\\", b"x")))
rows = st.lists(values, max_size=4).map(tuple)


def _escaped(value: bytes | None) -> bytes:
    if value is None:
        return b"\\N"
    signs = {b"\\": b"\\\\", b"\n": b"\\n", b"\t": b"\\t", b"\r": b"\\r"}
    return b"".join(signs.get(bytes((sign,)), bytes((sign,))) for sign in value)


@given(st.lists(rows, max_size=6))
def test_a_row_is_a_line_of_escaped_values(given: list[tuple[bytes | None, ...]]) -> None:
    lines = [b"\t".join(map(_escaped, row)) + b"\n" for row in given]

    assert b"".join(value_blocks(given)) == b"".join(lines)


def test_many_rows_are_a_few_blocks() -> None:
    blocks = value_blocks((b"%d" % number, b"x" * 100) for number in range(20_000))

    assert 5 < len(blocks) < 20
    assert b"".join(blocks).count(b"\n") == 20_000


@pytest.mark.parametrize("row", [b"", b"\0\1", b"\0\1x", b"\0\1t\0\0\0\2a", b"\0\1nn", b"\0\1t\0"])
def test_what_is_no_row_is_damaged(row: bytes) -> None:
    with pytest.raises(Damaged):
        row_blocks([pgoutput.encoded_row((b"1",)), row])


def test_a_value_that_the_log_does_not_hold_is_damaged() -> None:
    row: Row = (b"1", UNCHANGED)

    with pytest.raises(Damaged, match="lacks a value"):
        value_blocks([row])
