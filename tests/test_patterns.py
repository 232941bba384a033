from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kryonix_backup.errors import ConfigError
from kryonix_backup.patterns import Patterns
from tests.sources.files.engine import back_up, write


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.log", "cache/x.txt", "cache/keep/y.txt", "docs/c.txt", "docs/d.log"):
        write(tmp_path / name)
    write(tmp_path / "odd\nname" / "e.log")
    return tmp_path


def _kept(directory: Path, **settings: Any) -> set[bytes]:
    return {path for path in back_up(directory, **settings).paths if path}


def test_an_excluded_directory_is_left_out_whole(documents: Path) -> None:
    kept = _kept(documents, exclude=("cache/", "!cache/keep/y.txt"))

    assert not any(path.startswith(b"cache") for path in kept)
    assert b"docs/c.txt" in kept


def test_a_later_exclusion_may_take_back_an_earlier_one(documents: Path) -> None:
    kept = _kept(documents, exclude=("*.log", "!docs/d.log"))

    assert b"b.log" not in kept
    assert b"docs/d.log" in kept
    assert b"odd\nname/e.log" not in kept


def test_only_what_is_included_comes_with_its_directories(documents: Path) -> None:
    kept = _kept(documents, include=("*.log",))

    assert kept == {b"b.log", b"docs", b"docs/d.log", b"odd\nname", b"odd\nname/e.log"}


def test_an_included_directory_comes_with_everything_below(documents: Path) -> None:
    assert _kept(documents, include=("/cache/",)) == {
        b"cache", b"cache/x.txt", b"cache/keep", b"cache/keep/y.txt",
    }  # fmt: skip


def test_exclusion_wins(documents: Path) -> None:
    assert _kept(documents, include=("*.log",), exclude=("docs/",)) == {
        b"b.log", b"odd\nname", b"odd\nname/e.log",
    }  # fmt: skip


def test_a_pattern_that_cannot_be_understood_is_named() -> None:
    with pytest.raises(ConfigError, match="the pattern '!' cannot"):
        Patterns((), ("*.log", "!"))


patterns = st.lists(
    st.sampled_from(["*.log", "*.txt", "docs/", "/cache", "keep", "!x.txt", "**/y.txt", "a*"]),
    max_size=3,
)


@given(include=patterns, exclude=patterns)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_laws(documents: Path, include: list[str], exclude: list[str]) -> None:
    chosen = back_up(documents, include=tuple(include), exclude=tuple(exclude))
    unlimited = back_up(documents, exclude=tuple(exclude))

    paths = chosen.paths
    assert paths[0] == b""
    assert sorted(set(paths), key=unlimited.paths.index) == paths  # in order, none twice or new
    for path in paths:
        parent = path.rpartition(b"/")[0]
        assert parent in paths  # every directory above comes along
    patterns = Patterns(include, exclude)
    for entry in chosen.entries:
        if entry.path:
            assert not patterns.excludes(entry.path, directory=entry.kind == "dir")
