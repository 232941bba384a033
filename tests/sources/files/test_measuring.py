from __future__ import annotations

import os
from pathlib import Path

from kryonix_backup.patterns import Patterns
from kryonix_backup.sources.files.measuring import measure_tree
from kryonix_backup.sources.files.tree import PART
from kryonix_backup.sources.source import Size
from tests.sources.files.engine import source_of, write


def test_a_quick_look_counts_entries_and_the_bytes_of_files(tmp_path: Path) -> None:
    write(tmp_path / "a" / "one", b"1" * 100)
    write(tmp_path / "a" / "two.log", b"2" * 50)
    write(tmp_path / "cache" / "three", b"3" * 25)
    (tmp_path / "link").symlink_to("a/one")
    top = os.fsencode(tmp_path)

    assert source_of(tmp_path).measure(PART) == Size(6, 175)
    assert measure_tree(top, Patterns((), ("cache/",))) == Size(4, 150)
    assert measure_tree(top, Patterns(("*.log",), ())).bytes == 50
    assert measure_tree(top + b"/none", Patterns((), ())) == Size(0, 0)
