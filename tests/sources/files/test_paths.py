from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.errors import RestoreError, TargetFull, UnsafePath
from kryonix_backup.sources.files.paths import check_path, restore_error, shown, split


@given(st.binary())
def test_a_path_that_passes_stays_in_its_tree(path: bytes) -> None:
    try:
        check_path(path)
    except UnsafePath:
        return

    names = path.split(b"/")
    assert not {b"", b".", b".."} & set(names)
    assert b"\0" not in path


@pytest.mark.parametrize("path", [b"a", b"a/b", b"...", b"a/..b", b"\xff", b"a\nb", b" "])
def test_odd_names_pass(path: bytes) -> None:
    check_path(path)


def test_a_path_is_shown_to_people() -> None:
    assert shown(b"") == "."
    assert shown(b"a/\xff") == "a/\\xff"
    assert split(b"a/b/c") == (b"a/b", b"c")
    assert split(b"c") == (b"", b"c")


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, TargetFull), (errno.ELOOP, UnsafePath), (errno.EIO, RestoreError)],
)
def test_failures_of_a_restore_have_their_kind(code: int, error: type[RestoreError]) -> None:
    assert type(restore_error(OSError(code, "no"), "a")) is error
