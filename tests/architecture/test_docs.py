"""The documentation speaks of what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, modules, tracked

PAGES = sorted(path for path in tracked() if path.suffix == ".md")
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")
_ANCHOR = re.compile(r"\]\((?!https?://)([^)#]*)#([^)]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.M)
_TEST = re.compile(r"`([\w/]+/test_\w+\.py)(?:::(test_\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_anchor_is_a_heading(page: Path) -> None:
    broken = [
        f"{link}#{anchor}"
        for link, anchor in _ANCHOR.findall(page.read_text())
        if anchor not in _anchors((page.parent / link) if link else page)
    ]

    assert not broken


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    words = (heading.lower() for heading in _HEADING.findall(page.read_text()))
    return {re.sub(r"[^\w\- ]", "", each).replace(" ", "-") for each in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_row_stands_in_its_table(page: Path) -> None:
    lines = ["", *page.read_text().splitlines(), ""]
    alone = [
        row
        for before, row, after in zip(lines, lines[1:], lines[2:], strict=False)
        if row.startswith("|")
        and not before.startswith("|")
        and not after.startswith(("| -", "|--"))
    ]

    assert not alone


def test_what_shows_reliability_is_there() -> None:
    known = {
        module.path.removeprefix("tests/"): {name for name, _ in module.functions()}
        for module in modules("tests")
    }
    named = _TEST.findall((ROOT / "docs/reliability.md").read_text())

    assert named
    for path, test in named:
        assert path in known, path
        assert not test or test in {name.rpartition(".")[2] for name in known[path]}, test
