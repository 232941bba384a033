"""A failed run says what to do next, once."""

from __future__ import annotations

import inspect

import pytest

from flows.telling import telling_what_next
from kryonix_backup.errors import SnapshotUnknown


def fails(tenant: str, *, named: bool = True) -> None:
    error = SnapshotUnknown("there is none")
    error.tenant = tenant if named else None
    raise error


@pytest.mark.parametrize(
    ("named", "said"),
    [(True, "there is none. Next: See 'kryonix snapshots acme'."),
     (False, "there is none. Next: See 'kryonix snapshots ID'.")],
)  # fmt: skip
def test_the_hint_stands_behind_the_message_once(named: bool, said: str) -> None:
    with pytest.raises(SnapshotUnknown) as raised:
        telling_what_next(telling_what_next(fails))("acme", named=named)

    assert str(raised.value) == said
    assert raised.value.hint == SnapshotUnknown.hint


def test_the_function_takes_what_it_took() -> None:
    assert inspect.signature(telling_what_next(fails)) == inspect.signature(fails)
