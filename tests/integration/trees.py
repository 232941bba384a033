"""Trees of files made from a seed, edited from a seed, and compared to the last bit."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from random import Random
from typing import NamedTuple

from blake3 import blake3

MIB = 1 << 20
_STEP_NS = 1_000_000_007


class Seen(NamedTuple):
    """Everything about one entry that a restore brings back."""

    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: str


def grow(root: Path, rng: Random, *, small: int = 300, large_mib: int = 36) -> None:
    """A tree of many small files, a few large ones, links and an empty directory."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(small):
        write(root / f"small/{number % 17:02d}/{number:04d}.txt", rng.randrange(0, 60_000), rng)
    for number in range(3):
        write(root / f"large/{number}.bin", large_mib * MIB // 3 + rng.randrange(9999), rng)
    (root / "empty").mkdir(exist_ok=True)
    (root / "link").symlink_to("small/00")
    os.link(root / "large/0.bin", root / "again.bin")


def write(path: Path, size: int, rng: Random) -> None:
    """A new file of bytes that do not compress, with a mode and a time of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(rng.randbytes(size))
    path.chmod(rng.choice((0o644, 0o600, 0o755, 0o440)))
    when = 1_600_000_000 * 10**9 + rng.randrange(10**8) * _STEP_NS
    os.utime(path, ns=(when, when))


def edit(root: Path, rng: Random, *, new_mib: int = 12) -> None:
    """Change a part of a tree: files rewritten, grown, cut, removed, renamed, made."""
    files = sorted(path for path in root.rglob("*.txt") if path.is_file())
    for path in rng.sample(files, min(20, len(files))):
        choice = rng.randrange(4)
        if choice == 0:
            path.unlink()
        elif choice == 1:
            path.rename(path.with_suffix(f".{rng.randrange(10**6)}.txt"))
        else:
            write(path, rng.randrange(60_000), rng)
    write(root / f"large/{rng.randrange(3)}.bin", new_mib * MIB, rng)
    big = root / f"large/{rng.randrange(3)}.bin"
    content = bytearray(big.read_bytes())
    at = rng.randrange(len(content))
    content[at:at] = rng.randbytes(1000)
    big.unlink()
    big.write_bytes(content)
    for _ in range(10):
        write(root / f"small/new/{rng.randrange(10**9)}.txt", rng.randrange(40_000), rng)


def state(root: Path) -> dict[str, Seen]:
    """Every entry below and with the root, and what it is."""
    names: dict[tuple[int, int], str] = {}
    found = {".": _seen(root, root, names)}
    for path in sorted(root.rglob("*")):
        found[str(path.relative_to(root))] = _seen(root, path, names)
    return found


def _seen(root: Path, path: Path, names: dict[tuple[int, int], str]) -> Seen:
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        content = f"-> {path.readlink()}"
    elif stat.S_ISREG(info.st_mode):
        first = names.setdefault((info.st_dev, info.st_ino), str(path.relative_to(root)))
        content = f"{first}: {blake3(path.read_bytes()).hexdigest()}"
    else:
        content = ""
    return Seen(info.st_mode, (info.st_uid, info.st_gid), info.st_mtime_ns, content)


def differences(one: dict[str, Seen], two: dict[str, Seen]) -> list[str]:
    """The paths at which two trees differ, for a message; none where they are the same."""
    return sorted(path for path in one.keys() | two.keys() if one.get(path) != two.get(path))
