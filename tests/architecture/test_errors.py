"""Every failure is drawn in the tree of errors.py, has a code of its own and survives pickling."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest

from kryonix_backup import errors
from kryonix_backup.errors import KryonixError

_DRAWN = re.compile(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+) +(?P<code>\d+)\b", re.M)
KEPT_FOR_AN_INCOMPLETE_BACKUP = 3


def _family(root: type[KryonixError]) -> Iterator[type[KryonixError]]:
    yield root
    for child in root.__subclasses__():
        yield from _family(child)


# Tests may derive errors of their own; only the project's count.
OURS = [error for error in _family(KryonixError) if error.__module__.startswith("kryonix_backup")]


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn: dict[str, tuple[str | None, int]] = {}
    above: list[str] = []
    for match in _DRAWN.finditer(errors.__doc__ or ""):
        depth = len(match["branch"]) // 4
        del above[depth:]
        drawn[match["name"]] = (above[-1] if above else None, int(match["code"]))
        above.append(match["name"])
    real = {
        error.__name__: (
            None if error is KryonixError else error.__bases__[0].__name__,
            error.exit_code,
        )
        for error in OURS
    }

    assert drawn == real


def test_every_error_is_at_home_in_one_module() -> None:
    assert {error.__module__ for error in OURS} == {"kryonix_backup.errors"}


def test_exit_codes_are_distinct() -> None:
    codes = sorted(error.exit_code for error in OURS)

    assert all(before < after for before, after in pairwise(codes))
    assert KEPT_FOR_AN_INCOMPLETE_BACKUP not in codes
    assert all(0 < code < 256 for code in codes)


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_an_error_survives_pickling(error: type[KryonixError]) -> None:
    raised = error("pack 7 of acme is short", "Look at pack 7.")
    raised.tenant = "acme"

    copy = pickle.loads(pickle.dumps(raised))

    assert type(copy) is error
    assert (str(copy), copy.hint, copy.tenant) == (str(raised), raised.hint, "acme")


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_a_hint_is_a_sentence(error: type[KryonixError]) -> None:
    assert error.hint[0].isupper()
    assert error.hint.endswith(".")
    assert error.__doc__
