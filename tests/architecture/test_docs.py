"""The documentation speaks of what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, modules, tracked

PAGES = sorted(path for path in tracked() if path.suffix == ".md")
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")
_TEST = re.compile(r"`([\w/]+/test_\w+\.py)(?:::(test_\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert not broken


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
