"""Figures as people read them in a table."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least one: ``1.5 MiB``."""
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def times(whole: float, part: float) -> str:
    """How many times smaller the part is: ``3.2x``; a dash where nothing is left to compare."""
    return f"{whole / part:.1f}x" if part > 0 else "-"


def duration(seconds: float) -> str:
    """Seconds as ``0.4 s``, ``2 m 05 s`` or ``1 h 02 m``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m"
