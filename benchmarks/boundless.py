"""A tier that allows more than any machine has: what is measured is the program, not a limit."""

from __future__ import annotations

from pathlib import Path

from kryonix_backup.sdk.limits import load_tiers

NAME = "boundless"


def boundless_tiers(folder: Path) -> Path:
    """A file of tiers with those that are shipped, and `NAME`; ``KRYONIX_TIERS`` is its path."""
    text = load_tiers({}).file.read_text()
    block = text[text.index("  standard:") :].replace("standard", NAME)
    for name, most in (("cores: 2", "cores: 999"), ("4 GB", "64 GB"), ("500 Mbit/s", "99 Gbit/s")):
        block = block.replace(name, most)
    folder.mkdir(parents=True, exist_ok=True)
    tiers = folder / "tiers.yaml"
    tiers.write_text(f"{text}\n{block}")
    return tiers
