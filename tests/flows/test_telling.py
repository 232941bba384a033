"""A failed run says what to do next, once."""

from __future__ import annotations

import pytest

from flows.telling import telling_what_next
from kryonix_backup.errors import SnapshotUnknown


@pytest.mark.parametrize(
    ("tenant", "said"),
    [("acme", "there is none. Next: See 'kryonix snapshots acme'."),
     (None, "there is none. Next: See 'kryonix snapshots ID'.")],
)  # fmt: skip
def test_the_hint_stands_behind_the_message_once(tenant: str | None, said: str) -> None:
    error = SnapshotUnknown("there is none")
    error.tenant = tenant

    with pytest.raises(SnapshotUnknown) as raised, telling_what_next(), telling_what_next():
        raise error

    assert str(raised.value) == said
    assert raised.value.hint == SnapshotUnknown.hint
