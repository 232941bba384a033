"""
Content-defined cutting by FastCDC 2020 (Xia et al., IEEE TPDS 31(9), 2020), in compiled code.

A cut depends only on the bytes between it and the cut before, so a stream can be cut buffer by
buffer: only the last chunk of a buffer is not known to end there.
"""

from __future__ import annotations

from typing import NamedTuple

import pyfastcdc
from pyfastcdc import FastCDC

from kryonix_backup.errors import ConfigError
from kryonix_backup.model import KIB, MIB


class ChunkSizes(NamedTuple):
    """The least, the average and the greatest length of a chunk, in bytes."""

    least: int
    average: int
    greatest: int


# Smaller averages find more repeats and cost more index; benchmarks/chunk_size.py has the table.
FILE_CHUNKS = ChunkSizes(64 * KIB, 256 * KIB, MIB)


class Cutter:
    """Cuts buffers under one tenant's seed."""

    def __init__(self, sizes: ChunkSizes, seed: int) -> None:
        if "cy" not in FastCDC.__module__.split("."):
            raise ConfigError(
                f"pyfastcdc {pyfastcdc.__version__} runs without its compiled module",
                "Install it from a wheel: the interpreted one is two hundred times slower.",
            )
        self.sizes = sizes
        self._cut = FastCDC(
            avg_size=sizes.average, min_size=sizes.least, max_size=sizes.greatest, seed=seed
        ).cut_buf

    def lengths(self, buffer: memoryview) -> list[int]:
        """The lengths of the chunks of a buffer, in order; they add up to its length."""
        if len(buffer) <= self.sizes.least:
            return [len(buffer)] if len(buffer) else []
        return [chunk.length for chunk in self._cut(buffer)]
