"""A disk with little room."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MIB = 1 << 20
IS_ROOT = os.geteuid() == 0


class SmallDisk:
    """
    A directory with little room, until `grow` is called.

    Root mounts a small file system. Others give the run a limit on the size of its files, which
    the store knows as the same failure.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.limit: dict[str, int] = {}

    def mount(self, mib: int) -> None:
        """Little room from here on."""
        if IS_ROOT:
            _call("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "tmpfs", str(self.path))
        else:
            self.limit = {"most_bytes": mib * MIB // 4}

    def grow(self) -> None:
        """Enough room from here on."""
        if IS_ROOT:
            _call("mount", "-o", "remount,size=500m", str(self.path))
        self.limit = {}

    def fill(self, leaving_mib: int) -> Path:
        """A file that takes the room away again."""
        ballast = self.path / "ballast"
        ballast.touch()
        if IS_ROOT:
            room = os.statvfs(self.path)
            size = room.f_bavail * room.f_frsize - leaving_mib * MIB
            _call("fallocate", "--length", str(size), str(ballast))
        else:
            self.limit = {"most_bytes": 4 * MIB}
        return ballast

    def unmount(self) -> None:
        """Give the directory back."""
        if IS_ROOT and os.path.ismount(self.path):
            _call("umount", "--lazy", str(self.path))


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
