"""
What ways to compress cost and win, on frames as a first backup makes them.

    .venv/bin/python benchmarks/compression.py --kit ../shared/bench --work /tmp/compression

For each setting: CPU seconds and bytes of everything, and the share that is left of each kind of
file with its milliseconds a MiB. The settings take turns, so that all of them meet the same noise.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from kryonix_backup.model import MIB
from kryonix_backup.repository.codec import compressor
from kryonix_backup.repository.writer import FRAME_BYTES

SETTINGS = ("adaptive", "zstd:1", "zstd:2", "zstd:3")


def frames_of(folder: Path) -> Iterator[bytes]:
    """The files below a folder in order, one after the other, in frames."""
    waiting = bytearray()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        waiting += path.read_bytes()
        while len(waiting) >= FRAME_BYTES:
            yield bytes(waiting[:FRAME_BYTES])
            del waiting[:FRAME_BYTES]
    if waiting:
        yield bytes(waiting)


def measure(setting: str, kinds: dict[str, list[bytes]]) -> dict[str, tuple[float, int]]:
    """CPU seconds and bytes of each kind, by one compressor that sees them one after the other."""
    compress = compressor(setting)
    found = {}
    for kind, frames in kinds.items():
        started = time.thread_time()
        size = sum(len(compress(frame)[1]) for frame in frames)
        found[kind] = (time.thread_time() - started, size)
    return found


def row(setting: str, turns: list[dict[str, tuple[float, int]]], raw: dict[str, int]) -> str:
    """One row of the table."""
    cells = []
    for kind, size in raw.items():
        cpu = statistics.median(turn[kind][0] for turn in turns)
        cells.append(f"{turns[0][kind][1] / size:.1%} {cpu * 1000 / (size / MIB):.2f}")
    sums = [sum(cpu for cpu, _ in turn.values()) for turn in turns]
    stored = sum(size for _, size in turns[0].values())
    spread = f"{statistics.median(sums):.2f} ({min(sums):.2f} to {max(sums):.2f})"
    return f"| {setting} | {spread} | {stored / MIB:.1f} | " + " | ".join(cells) + " |"


def main() -> int:
    """Make the tree where it is not there yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kit", required=True, type=Path, help="folder of gen_dataset.py")
    parser.add_argument("--work", required=True, type=Path, help="folder for the tree")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--reps", type=int, default=5)
    options = parser.parse_args()
    tree = options.work / "tree"
    if not tree.exists():
        subprocess.run(
            [sys.executable, options.kit / "gen_dataset.py", "v1", tree, "--mib", str(options.mib)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    kinds = {folder.name: list(frames_of(folder)) for folder in sorted(tree.iterdir())}
    raw = {kind: sum(map(len, frames)) for kind, frames in kinds.items()}
    turns: dict[str, list[dict[str, tuple[float, int]]]] = {each: [] for each in SETTINGS}
    for _ in range(options.reps):
        for setting, done in turns.items():
            done.append(measure(setting, kinds))
    print("| setting | cpu s | MiB |", " | ".join(raw), "|")
    print("| --- " * (3 + len(raw)) + "|")
    for setting, done in turns.items():
        print(row(setting, done, raw))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
