"""Any tree comes back as it was."""

from __future__ import annotations

import os
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sources.files.engine import (
    back_up,
    look_at,
    restore,
)

META = {"mode": 0o755, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 5}
Tree: TypeAlias = "bytes | tuple[bytes] | dict[bytes, Tree]"

names = st.binary(min_size=1, max_size=6).filter(
    lambda name: name not in (b".", b"..") and not set(name) & set(b"/\0")
)
contents = st.binary(max_size=40)
kinds: st.SearchStrategy[Tree] = st.one_of(
    contents,
    st.deferred(lambda: st.dictionaries(names, kinds, max_size=4)),
    st.tuples(names),
)


def _make(place: bytes, what: Tree) -> None:
    if isinstance(what, dict):
        os.mkdir(place)
        for name, inner in what.items():
            _make(place + b"/" + name, inner)
    elif isinstance(what, bytes):
        with open(place, "wb") as file:
            file.write(what)
    else:
        os.symlink(what[0], place)


@given(tree=st.dictionaries(names, kinds, max_size=6))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_comes_back(
    tree: dict[bytes, Tree], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("any")
    _make(os.fsencode(place / "tree"), tree)

    snapshot = back_up(place / "tree")
    again = back_up(place / "tree", snapshot)
    restore(again, place / "back")

    assert again.read == []
    assert look_at(place / "back") == look_at(place / "tree")
