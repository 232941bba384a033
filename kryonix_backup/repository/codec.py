"""
Compressing and the way back, bounded.

Every frame says how it was compressed. *Adaptive* measures: after a frame that did not compress, a
trial on three samples finds whether the next one does; and now and then a frame is compressed at
two levels to see which pays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

import zstandard

from kryonix_backup.errors import ConfigError, Damaged
from kryonix_backup.model import KIB, Blob


class Codec(IntEnum):
    """How a frame was compressed."""

    STORE = 0
    ZSTD = 1
    BROTLI = 2


class Compressor(Protocol):
    """Turns bytes into fewer; every call is for one thread at a time."""

    def __call__(self, raw: Blob) -> tuple[Codec, Blob]:
        """The codec that was used and the compressed bytes; STORE where nothing was won."""
        ...


# A frame that shrinks by less than this is stored as it is: reading it back is then free.
WORTHWHILE = 0.97

_SAMPLE_BYTES = 4 * KIB
# One frame in so many is compressed both ways, 2 to 4 % of the time; an odd number, as a buffer of
# small files makes four frames and the last of them is less than the others.
_TRIAL_EVERY = 23
# Level 3 is taken where it saves more than this share of what level 1 leaves; it takes 1.1 to 1.5
# times as long (benchmarks/compression.py).
_WORTH_LEVEL_3 = 0.05


def _cheap() -> zstandard.ZstdCompressor:
    """Level 1, but for repeats from 6 bytes on instead of 7: as fast, and smaller by 1 to 4 %."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, min_match=6)
    return zstandard.ZstdCompressor(compression_params=parameters)


class Adaptive:
    """zstd in the way that measures best on this stream, or stored."""

    def __init__(self) -> None:
        self._cheap = _cheap()
        self._dear = zstandard.ZstdCompressor(level=3)
        self._best = self._dear
        self._frames = 0
        self._left = self._saved = 0
        self._stored = True

    def __call__(self, raw: Blob) -> tuple[Codec, Blob]:
        if self._stored and len(raw) >= 4 * _SAMPLE_BYTES and not self._compresses(raw):
            return Codec.STORE, raw
        trial = self._frames % _TRIAL_EVERY == 0
        packed = self._trial(raw) if trial else self._best.compress(raw)
        self._frames += 1
        self._stored = len(packed) >= WORTHWHILE * len(raw)
        return (Codec.STORE, raw) if self._stored else (Codec.ZSTD, packed)

    def _compresses(self, raw: Blob) -> bool:
        view = memoryview(raw)
        middle = len(view) // 2
        samples = b"".join(
            (view[:_SAMPLE_BYTES], view[middle : middle + _SAMPLE_BYTES], view[-_SAMPLE_BYTES:])
        )
        return len(self._cheap.compress(samples)) < WORTHWHILE * len(samples)

    def _trial(self, raw: Blob) -> bytes:
        cheap, dear = self._cheap.compress(raw), self._dear.compress(raw)
        # What was seen long ago counts for less.
        self._left = self._left // 4 + len(cheap)
        self._saved = self._saved // 4 + len(cheap) - len(dear)
        worth = self._saved > _WORTH_LEVEL_3 * self._left
        self._best = self._dear if worth else self._cheap
        return min(cheap, dear, key=len)


class Zstd:
    """zstd at a level of the operator's choice."""

    def __init__(self, level: int) -> None:
        self._compressor = zstandard.ZstdCompressor(level=level)

    def __call__(self, raw: Blob) -> tuple[Codec, Blob]:
        packed = self._compressor.compress(raw)
        return (Codec.ZSTD, packed) if len(packed) < WORTHWHILE * len(raw) else (Codec.STORE, raw)


class Brotli:
    """brotli at a level of the operator's choice; for layers that a mobile device unpacks."""

    def __init__(self, level: int) -> None:
        import brotli

        self._compress: Callable[..., bytes] = brotli.compress
        self._level = level

    def __call__(self, raw: Blob) -> tuple[Codec, Blob]:
        packed = self._compress(bytes(raw), quality=self._level)
        return (Codec.BROTLI, packed) if len(packed) < WORTHWHILE * len(raw) else (Codec.STORE, raw)


class Store:
    """Leaves bytes as they are."""

    def __call__(self, raw: Blob) -> tuple[Codec, Blob]:
        return Codec.STORE, raw


def compressor(setting: str) -> Compressor:
    """
    A compressor for ``adaptive``, ``store``, ``zstd:1`` to ``19`` or ``brotli:0`` to ``11``.

    Raises ConfigError.
    """
    name, _, level = setting.partition(":")
    if setting == "adaptive":
        return Adaptive()
    if setting == "store":
        return Store()
    if name == "zstd" and level.isdecimal() and 1 <= int(level) <= 19:
        return Zstd(int(level))
    if name == "brotli" and level.isdecimal() and int(level) <= 11:
        return Brotli(int(level))
    raise ConfigError(
        f"compression {setting!r} is not known",
        "Use adaptive, store, zstd:1 to zstd:19, or brotli:0 to brotli:11.",
    )


_threads = threading.local()


def decompress(codec: Codec, packed: Blob, raw_length: int) -> Blob:
    """
    The raw bytes of a frame, exactly ``raw_length`` of them; never takes more memory than that.

    Raises Damaged for anything else.
    """
    if codec is Codec.STORE:
        raw: Blob = packed
    elif codec is Codec.ZSTD:
        raw = _unzstd(packed, raw_length)
    else:
        raw = _unbrotli(packed, raw_length)
    if len(raw) != raw_length:
        raise Damaged(f"a frame holds {len(raw)} bytes instead of {raw_length}")
    return raw


def _unzstd(packed: Blob, raw_length: int) -> bytes:
    if not hasattr(_threads, "zstd"):
        _threads.zstd = zstandard.ZstdDecompressor()
    try:
        # The frame's own header says how much memory it wants; it is believed only if it agrees.
        if zstandard.get_frame_parameters(packed).content_size != raw_length:
            raise Damaged("a zstd frame announces another length than its directory")
        return bytes(_threads.zstd.decompress(packed, max_output_size=raw_length))
    except zstandard.ZstdError as error:
        raise Damaged(f"a zstd frame does not open: {error}") from error


def _unbrotli(packed: Blob, raw_length: int) -> bytes:
    import brotli

    decoder = brotli.Decompressor()
    try:
        raw: bytes = decoder.process(bytes(packed), output_buffer_limit=raw_length + 1)
    except brotli.error as error:
        raise Damaged(f"a brotli frame does not open: {error}") from error
    if len(raw) > raw_length or not decoder.is_finished():
        raise Damaged("a brotli frame holds more than its directory says")
    return raw
