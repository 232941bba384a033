"""What is compressed comes back, and never as more than its directory says."""

from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis.strategies import binary, integers, sampled_from

from kryonix_backup.errors import ConfigError, Damaged
from kryonix_backup.model import KIB, MIB
from kryonix_backup.repository.codec import Adaptive, Codec, compressor, decompress

SETTINGS = ("adaptive", "store", "zstd:1", "zstd:3", "zstd:19", "brotli:0", "brotli:11")
RANDOM = random.Random(1).randbytes(256 * KIB)
TEXT = b"".join(b"%d GET /index/%d 200\n" % (n, n * n % 997) for n in range(12_000))


@settings(max_examples=60)
@given(
    setting=sampled_from(SETTINGS),
    body=binary(max_size=2000),
    times=integers(1, 40),
)
def test_whatever_is_compressed_comes_back(setting: str, body: bytes, times: int) -> None:
    raw = body * times
    compress = compressor(setting)

    for _ in range(2):  # a compressor is used again and again
        codec, packed = compress(memoryview(raw))
        assert bytes(decompress(codec, packed, len(raw))) == raw
        assert len(packed) <= len(raw)


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_does_not_shrink_is_stored(setting: str) -> None:
    codec, packed = compressor(setting)(memoryview(RANDOM))

    assert codec is Codec.STORE
    assert bytes(packed) == RANDOM


@pytest.mark.parametrize(
    ("setting", "codec"),
    [("adaptive", Codec.ZSTD), ("zstd:1", Codec.ZSTD), ("brotli:5", Codec.BROTLI)],
)
def test_text_shrinks(setting: str, codec: Codec) -> None:
    used, packed = compressor(setting)(memoryview(TEXT))

    assert used is codec
    assert len(packed) < len(TEXT) / 2


def _words(least: int, most: int) -> bytes:
    """Words of so many letters in no order."""
    draw = random.Random(2)
    letters = [bytes((code,)) for code in range(97, 123)]
    words = [b"".join(draw.choices(letters, k=draw.randint(least, most))) for _ in range(100)]
    return b" ".join(draw.choices(words, k=40_000))


SHORT_WORDS = _words(3, 6)  # level 3 saves 8.7 % of what level 1 leaves
LONG_WORDS = _words(8, 14)  # level 1 finds all that there is


def test_adaptive_takes_level_3_where_it_pays() -> None:
    lengths = {}
    for body in (SHORT_WORDS, LONG_WORDS):
        level_3 = len(zstandard.ZstdCompressor(level=3).compress(body))
        compress = Adaptive()
        for _ in range(50):
            _, packed = compress(body)
            assert len(packed) * 0.95 <= level_3
        lengths[body] = len(packed) == level_3

    assert lengths == {SHORT_WORDS: True, LONG_WORDS: False}


def test_adaptive_follows_a_stream_that_changes() -> None:
    compress = Adaptive()
    level_3 = len(zstandard.ZstdCompressor(level=3).compress(SHORT_WORDS))
    for _ in range(100):
        compress(LONG_WORDS)

    for _ in range(100):
        _, packed = compress(SHORT_WORDS)

    assert len(packed) == level_3


def test_adaptive_stores_a_frame_that_only_starts_like_text() -> None:
    """The samples are of its start, middle and end; what they miss is seen by the result."""
    mixed = TEXT[: 6 * KIB] + RANDOM

    codec, packed = Adaptive()(memoryview(mixed))

    assert bytes(decompress(codec, packed, len(mixed))) == mixed
    assert codec is Codec.STORE


def test_adaptive_takes_samples_only_after_what_did_not_compress() -> None:
    misleading = bytearray(TEXT[: 192 * KIB])
    for start in (0, 96 * KIB, 188 * KIB):
        misleading[start : start + 4 * KIB] = RANDOM[start : start + 4 * KIB]
    compress = Adaptive()

    used = [compress(raw)[0] for raw in (misleading, TEXT, misleading, RANDOM, misleading, TEXT)]

    assert used == [
        Codec.STORE, Codec.ZSTD, Codec.ZSTD, Codec.STORE, Codec.STORE, Codec.ZSTD,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "setting",
    ["", "none", "zstd", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "zstd:³", "brotli:12", "gzip:6"],
)
def test_an_unknown_setting_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="compression"):
        compressor(setting)


def _zstd(raw: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(level=3, **options).compress(raw)


def _announcing(length: int) -> bytes:
    """A zstd frame whose header says ``length`` and whose block says 128 KiB of one byte."""
    block = (128 * KIB << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\xe0" + length.to_bytes(8, "little") + block


BOMBS = {
    "zstd of more": (Codec.ZSTD, _zstd(bytes(16 * MIB)), 1000),
    "zstd of less": (Codec.ZSTD, _zstd(bytes(10)), 1000),
    "zstd without a length": (Codec.ZSTD, _zstd(bytes(16 * MIB), write_content_size=False), 1000),
    "zstd that lies": (Codec.ZSTD, _announcing(1000), 1000),
    "zstd that says the greatest": (Codec.ZSTD, _announcing((1 << 64) - 3), 1000),
    "zstd cut": (Codec.ZSTD, _zstd(TEXT)[:-20], len(TEXT)),
    "no zstd": (Codec.ZSTD, b"", 1000),
    "brotli of more": (Codec.BROTLI, brotli.compress(bytes(16 * MIB), quality=5), 1000),
    "brotli of one more": (Codec.BROTLI, brotli.compress(bytes(1001)), 1000),
    "brotli of less": (Codec.BROTLI, brotli.compress(bytes(10)), 1000),
    "brotli cut": (Codec.BROTLI, brotli.compress(TEXT)[:-20], len(TEXT)),
    "no brotli": (Codec.BROTLI, b"", 1000),
    "brotli with a tail": (Codec.BROTLI, brotli.compress(bytes(1000)) + b"tail", 1000),
    "stored more": (Codec.STORE, bytes(1001), 1000),
    "stored less": (Codec.STORE, bytes(999), 1000),
}


def _peak(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_frame_that_is_not_what_it_should_be_is_damaged_and_takes_no_memory(bomb: str) -> None:
    codec, packed, length = BOMBS[bomb]

    def open_it() -> None:
        with pytest.raises(Damaged):
            decompress(codec, packed, length)

    open_it()  # what is imported or set up once does not count
    assert _peak(open_it) < 512 * KIB


def test_threads_do_not_disturb_each_other() -> None:
    codec, packed = compressor("zstd:3")(TEXT)
    wrong: list[int] = []

    def work() -> None:
        for _ in range(50):
            if bytes(decompress(codec, packed, len(TEXT))) != TEXT:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
