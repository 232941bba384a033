"""The demo's tenant: the same seed makes the same files, and edits change a small part."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from deployments.demo_data import build, edit
from deployments.demo_inventory import Inventory, compare, take

MIB = 1 << 20


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inventory, Inventory, Path]:
    root = tmp_path_factory.mktemp("demo") / "files"
    build(root, 24)
    first = take(root)
    edit(root)
    return first, take(root), root


def test_the_tree_is_about_as_big_as_asked(states: tuple[Inventory, Inventory, Path]) -> None:
    size = sum(item.size for item in states[0].values())

    assert 20 * MIB < size < 36 * MIB


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    build(tmp_path / "a", 2)
    build(tmp_path / "b", 2)

    assert not compare(take(tmp_path / "a"), take(tmp_path / "b")).differences


def test_an_edit_changes_a_small_part(states: tuple[Inventory, Inventory, Path]) -> None:
    before, after, _ = states
    changed = [name for name in before.keys() & after.keys() if before[name] != after[name]]

    assert 0 < len(changed) < len(before) // 5
    assert before.keys() - after.keys()
    assert after.keys() - before.keys()


def test_the_database_can_be_asked(states: tuple[Inventory, Inventory, Path]) -> None:
    with closing(sqlite3.connect(states[2] / "database/crm.sqlite3")) as database:
        (called,) = database.execute(
            "SELECT count(*) FROM customer WHERE note = 'called back'"
        ).fetchone()

    assert called == 801


def test_what_file_systems_allow_is_in_the_tree(
    states: tuple[Inventory, Inventory, Path],
) -> None:
    before = states[0]

    assert before["corners/same-as-plain"].twin == "corners/plain.txt"
    assert before["corners/to-nowhere"].content == "../gone/for-ever"
    assert before["corners/shared"].mode & 0o7777 == 0o2775
    assert os.fsdecode(b"corners/caf\xe9.txt") in before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "file").write_bytes(b"other"), "'file' differs in modified, content"),
        (lambda root: (root / "file").chmod(0o600), "'file' differs in mode"),
        (lambda root: os.utime(root / "file", ns=(1, 1)), "'file' differs in modified"),
        (lambda root: (root / "file").unlink(), "'file' is missing"),
        (lambda root: (root / "more").touch(), "'more' is too much"),
    ],
)
def test_a_comparison_finds_every_difference(tmp_path: Path, change: object, said: str) -> None:
    assert callable(change)
    (tmp_path / "file").write_bytes(b"bytes")
    (tmp_path / "file").chmod(0o644)
    os.utime(tmp_path / "file", ns=(5, 5))
    before = take(tmp_path)

    change(tmp_path)

    assert said in compare(before, take(tmp_path)).differences
