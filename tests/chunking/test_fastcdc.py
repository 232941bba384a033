"""A stream is cut by its content alone, the same way for ever."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis.strategies import binary, integers, lists

from kryonix_backup.chunking import fastcdc
from kryonix_backup.chunking.fastcdc import FILE_CHUNKS, ChunkSizes, Cutter
from kryonix_backup.errors import ConfigError
from kryonix_backup.model import KIB, MIB

SMALL = ChunkSizes(64, 256, KIB)
SEED = 6828335623913507073
GOLDEN = [202081, 346545, 330182, 273964, 541715, 218806, 129849, 54010]  # fmt: skip


def _bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_the_cuts_of_format_1_stay_where_they_are() -> None:
    """Other cuts would store everything anew; the input is SHA-256 in counter mode."""
    body = b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(65_536))

    assert Cutter(FILE_CHUNKS, SEED).lengths(memoryview(body)) == GOLDEN
    assert Cutter(FILE_CHUNKS, SEED + 1).lengths(memoryview(body)) != GOLDEN


@given(body=binary(max_size=4 * KIB), seed=integers(0, (1 << 63) - 1))
def test_lengths_add_up_and_stay_in_their_bounds(body: bytes, seed: int) -> None:
    lengths = Cutter(SMALL, seed).lengths(memoryview(body))

    assert sum(lengths) == len(body)
    assert all(SMALL.least <= length <= SMALL.greatest for length in lengths[:-1])
    assert all(0 < length <= SMALL.greatest for length in lengths)


def _in_buffers(cutter: Cutter, body: bytes, sizes: list[int]) -> list[int]:
    """The cuts of a stream that comes in buffers, as the pipeline carries the last piece on."""
    cuts: list[int] = []
    carried, at = b"", 0
    for size in sizes:
        buffer = carried + body[at : at + size]
        at += size
        lengths = cutter.lengths(memoryview(buffer))
        if lengths and at < len(body):
            last = lengths.pop()
            carried = buffer[len(buffer) - last :]
        else:
            carried = b""
        cuts += lengths
        if at >= len(body):
            return cuts
    return cuts + cutter.lengths(memoryview(carried + body[at:]))


@settings(max_examples=50)
@given(
    seed=integers(0, 1000),
    size=integers(0, 40_000),
    buffers=lists(integers(2 * SMALL.greatest, 5 * SMALL.greatest), max_size=20),
)
def test_a_stream_in_buffers_is_cut_like_the_whole(
    seed: int, size: int, buffers: list[int]
) -> None:
    cutter = Cutter(SMALL, seed)
    body = _bytes(size, seed)

    assert _in_buffers(cutter, body, buffers) == cutter.lengths(memoryview(body))


@pytest.mark.parametrize("at", [0, 1, 1_000_000, 2_000_000])
def test_an_insertion_changes_only_the_chunks_near_it(at: int) -> None:
    cutter = Cutter(FILE_CHUNKS, SEED)
    body = _bytes(4 * MIB)
    edited = body[:at] + b"inserted" + body[at:]

    before, after = _chunks(cutter, body), _chunks(cutter, edited)

    assert len(set(after) - set(before)) <= 2
    assert len(before) > 10


def _chunks(cutter: Cutter, body: bytes) -> list[bytes]:
    chunks, at = [], 0
    for length in cutter.lengths(memoryview(body)):
        chunks.append(body[at : at + length])
        at += length
    return chunks


def test_nothing_has_no_chunks() -> None:
    assert Cutter(FILE_CHUNKS, SEED).lengths(memoryview(b"")) == []


def test_equal_bytes_are_cut_by_force() -> None:
    lengths = Cutter(FILE_CHUNKS, SEED).lengths(memoryview(bytes(5 * MIB)))

    assert lengths == [FILE_CHUNKS.greatest] * 5


def test_the_interpreted_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interpreted:
        """What a wheel without its compiled module has."""

        __module__ = "pyfastcdc.py.fastcdc"

    monkeypatch.setattr(fastcdc, "FastCDC", Interpreted)

    with pytest.raises(ConfigError, match="compiled"):
        Cutter(FILE_CHUNKS, SEED)
