"""Figures, times and tables for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

# 12, 1,024, 3.5 MiB, 2 m 05 s
_FIGURE = re.compile(r"[\d.,]+(?: [A-Za-z]+)?(?: \d+ [a-z])?")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """Bytes in binary units, such as ``1.5 MiB``."""
    value, unit = float(count), 0
    while abs(value) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds as ``0.4 s``, ``2 m 05 s`` or ``1 h 02 m``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m"


def moment(time: datetime | str) -> str:
    """A time to the second, in UTC."""
    value = datetime.fromisoformat(time) if isinstance(time, str) else time
    return f"{value:%Y-%m-%d %H:%M:%S}Z"


def printable(text: str) -> str:
    """
    The text without anything that could command a terminal.

    File names are chosen by whoever could write to the source.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines with columns under their heads; figures stand to the right."""
    body = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(head), *body]) for at in range(len(head))]
    for row in [list(head), *body]:
        cells = [
            cell.rjust(width) if _is_figure(body, at) else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _is_figure(body: Sequence[Sequence[str]], at: int) -> bool:
    cells = [row[at] for row in body if row[at]]
    return bool(cells) and all(_FIGURE.fullmatch(cell) for cell in cells)


def moment_lines(tenant: str, logs: Mapping[str, Any]) -> Iterator[str]:
    """Which moments of each source its log leads to, out of what --json prints of them."""
    for name, log in logs.items():
        if not log["ranges"]:
            yield f"{name}: no moment can be restored with --at yet"
        for each in log["ranges"]:
            yield f"{name}: any moment from {each['from']} to {each['to']}"
        for gap in log["gaps"]:
            start = f"after {gap['from']}" if gap["from"] else "at all"
            end = f" until {gap['to']}" if gap["to"] else ""
            yield printable(f"{name}: none {start}{end}: {gap['reason']}")
        if log["needs_full"]:
            yield (
                f"  next: 'kryonix backup {tenant} --source {name} --kind log', then a full backup"
                " of it: every moment from then on can be restored again"
            )
