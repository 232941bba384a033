"""
How much of a machine one tenant may take.

People write sizes and rates with their units (``4 GB``, ``500 Mbit/s``); a number without one is
never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

from kryonix_backup.errors import ConfigError

LEAST_MEMORY_BYTES = 400_000_000
"""What a backup or restore may need to work at all, by `kryonix_backup.tenancy.memory`."""
LEAST_BANDWIDTH_BITS_S = 1_000_000
"""Below it one pack of 64 MiB would be on its way for longer than any store waits."""

_MOST = 1 << 62  # whatever is beyond is a slip, and breaks arithmetic elsewhere
_QUANTITY = re.compile(r"([0-9]{1,18}) ?([A-Za-z/]+)", re.ASCII)
_BYTES = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1} | {
    unit: 1 << (10 * power) for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)
}
_BITS_S = {"Gbit/s": 10**9, "Mbit/s": 10**6, "kbit/s": 10**3, "bit/s": 1}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may take on one machine: CPU cores, memory, bandwidth, backups at once."""

    cores: int
    memory_bytes: int
    bandwidth_bits_s: int
    workers: int

    def to_plain(self) -> dict[str, int]:
        """The limits as JSON can say them."""
        return asdict(self)

    def lowered(self, wishes: LimitSettings) -> Limits:
        """These limits, or the wishes where they are below."""
        return Limits(
            cores=_least(self.cores, wishes.cores),
            memory_bytes=_least(self.memory_bytes, wishes.memory_bytes),
            bandwidth_bits_s=_least(self.bandwidth_bits_s, wishes.bandwidth_bits_s),
            workers=_least(self.workers, wishes.workers),
        )


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """A tenant's own limits, below those of its tier; what is None is the tier's."""

    cores: int | None = None
    memory_bytes: int | None = None
    bandwidth_bits_s: int | None = None
    workers: int | None = None

    def to_plain(self) -> dict[str, int | str]:
        """The settings as a tenant's file says them; empty where all is the tier's."""
        shown = {
            "cores": self.cores,
            "memory": None if self.memory_bytes is None else show_bytes(self.memory_bytes),
            "bandwidth": None
            if self.bandwidth_bits_s is None
            else show_bits(self.bandwidth_bits_s),
            "workers": self.workers,
        }
        return {name: value for name, value in shown.items() if value is not None}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Settings out of `to_plain`'s form, checked; raises ConfigError, naming the limit."""
        if not isinstance(plain, Mapping):
            raise ConfigError("the tenant's limits are not a mapping of names to limits")
        unknown = sorted(str(name) for name in set(plain) - set(_READERS))
        if unknown:
            raise ConfigError(
                f"there is no limit {unknown[0]!r}", f"The limits are {', '.join(_READERS)}."
            )
        found = {name: _READERS[name](plain[name]) for name in _READERS if name in plain}
        return cls(
            found.get("cores"), found.get("memory"), found.get("bandwidth"), found.get("workers")
        )

    def above(self, limits: Limits) -> str | None:
        """The first limit that is above the given ones; None where none is."""
        pairs = {
            "cores": (self.cores, limits.cores),
            "memory": (self.memory_bytes, limits.memory_bytes),
            "bandwidth": (self.bandwidth_bits_s, limits.bandwidth_bits_s),
            "workers": (self.workers, limits.workers),
        }
        for name, (wish, most) in pairs.items():
            if wish is not None and wish > most:
                return name
        return None


def _least(own: int, wish: int | None) -> int:
    return own if wish is None else min(own, wish)


def read_count(what: str, given: Any) -> int:
    """A whole number of at least 1; raises ConfigError."""
    text = str(given)
    if isinstance(given, bool) or not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) or int(text) < 1:
        raise ConfigError(f"{what} is {given!r}, not a whole number from 1 on")
    return int(text)


def read_memory(given: Any) -> int:
    """Bytes of memory, such as ``4 GB``; raises ConfigError, also for what nothing works with."""
    found = _quantity("memory", given, _BYTES, "4 GB")
    if found < LEAST_MEMORY_BYTES:
        raise ConfigError(
            f"memory is {given!r}, and nothing can be backed up or restored with less than"
            f" {show_bytes(LEAST_MEMORY_BYTES)}",
            f"Give it {show_bytes(LEAST_MEMORY_BYTES)} or more.",
        )
    return found


def read_bandwidth(given: Any) -> int:
    """Bits per second, such as ``500 Mbit/s``; raises ConfigError, also for next to nothing."""
    found = _quantity("bandwidth", given, _BITS_S, "500 Mbit/s")
    if found < LEAST_BANDWIDTH_BITS_S:
        raise ConfigError(
            f"bandwidth is {given!r}, below {show_bits(LEAST_BANDWIDTH_BITS_S)}: one object would"
            " take longer than a request may",
            f"Give it {show_bits(LEAST_BANDWIDTH_BITS_S)} or more.",
        )
    return found


def show_bytes(count: int) -> str:
    """Bytes exactly, in the greatest unit that they are a multiple of."""
    return _shown(count, _BYTES)


def show_bits(rate: int) -> str:
    """Bits per second exactly, in the greatest unit that they are a multiple of."""
    return _shown(rate, _BITS_S)


def _quantity(what: str, given: Any, units: Mapping[str, int], example: str) -> int:
    found = _QUANTITY.fullmatch(str(given))
    if found is None or found[2] not in units or int(found[1]) * units[found[2]] > _MOST:
        raise ConfigError(
            f"{what} is {given!r}, not a whole number and a unit",
            f"Write it like {example!r}; the units are {', '.join(units)}.",
        )
    return int(found[1]) * units[found[2]]


def _shown(value: int, units: Mapping[str, int]) -> str:
    fitting = [(size, unit) for unit, size in units.items() if value % size == 0]
    size, unit = max(fitting)
    return f"{value // size} {unit}"


_READERS: dict[str, Callable[[Any], int]] = {
    "cores": partial(read_count, "cores"),
    "memory": read_memory,
    "bandwidth": read_bandwidth,
    "workers": partial(read_count, "workers"),
}
