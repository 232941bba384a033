"""Names of chunks are keyed, the tenant's own, and the same for ever."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis.strategies import binary

from kryonix_backup.crypto.naming import ChunkNamer
from kryonix_backup.settings import Secret

ID_KEY = bytes(range(32, 64))
NAMER = ChunkNamer(Secret(ID_KEY))


def test_names_and_seeds_have_their_known_answers() -> None:
    """Computed once by `cryptography` and `blake3` alone; they never change in format 1."""
    assert NAMER(b"kryonix").hex() == (
        "44d0e0753d7bf5ff8a5f7a4c7325362bf2835846e70e77d9dcea98a1c1a52dcb"
    )
    assert NAMER.chunker_seed == 6828335623913507073
    assert NAMER.tree_seed == 1991971742


@given(data=binary(max_size=100))
def test_a_name_depends_on_the_tenants_key_and_the_bytes_alone(data: bytes) -> None:
    other = ChunkNamer(Secret(b"\1" * 32))

    assert NAMER(data) == NAMER(memoryview(bytearray(data)))
    assert NAMER(data) != other(data)
    assert NAMER(data) != NAMER(data + b"\0")


def test_seeds_fit_what_they_are_used_for() -> None:
    for fill in range(256):
        namer = ChunkNamer(Secret(bytes([fill]) * 32))
        assert 0 <= namer.chunker_seed < 1 << 63
        assert 0 <= namer.tree_seed < 1 << 32


def test_a_namer_neither_prints_nor_pickles_its_key() -> None:
    assert ID_KEY.hex() not in repr(NAMER)
    assert repr(ID_KEY) not in repr(NAMER)
    with pytest.raises(TypeError):
        pickle.dumps(NAMER)
