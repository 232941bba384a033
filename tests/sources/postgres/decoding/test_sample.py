"""What is written of a sample is read as it was, and anything else is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kryonix_backup.errors import Damaged
from kryonix_backup.model import MIB
from kryonix_backup.sources.postgres.decoding import pgoutput, sample

TIME = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
META = {"owner": 'O"ne', "acl": ['"O""ne"=rw/"O""ne"'], "comment": None}
SAMPLE = {
    sample.begun(sample.Begun(1 << 40, TIME, 3)): sample.Begun(1 << 40, TIME, 3),
    sample.told(4_294_967_295, META): sample.Told(4_294_967_295, META),
    sample.runs([(1, 2), (9, 1)]): sample.Runs([(1, 2), (9, 1)]),
    sample.comments([(1, "ü")]): sample.Comments({1: "ü"}),
    sample.ended(): sample.Ended(),
}


def test_it_is_read_as_it_was_written() -> None:
    assert [sample.parse(frame) for frame in pgoutput.frames(SAMPLE)] == list(SAMPLE.values())
    (piece,) = pgoutput.frames([sample.piece(b"\0\1")])
    said = sample.parse(piece)
    assert isinstance(said, sample.Piece)
    assert bytes(said.data) == b"\0\1"
    assert len(sample.piece(bytes(sample.PIECE_BYTES))) == MIB


@pytest.mark.parametrize(
    "message",
    [b"L", b"Lz", b"Ls", b"Ls{}", b'Lo{"oid": 1}', b"Lo[]", b"Ll123", b"Lc[1]", b"Lc{"],
)
def test_another_form_is_damage(message: bytes) -> None:
    with pytest.raises(Damaged, match="a part of a sample of large objects"):
        sample.parse(message)
