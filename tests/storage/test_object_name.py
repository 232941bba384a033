from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.errors import InvalidName
from kryonix_backup.storage.object_name import check_object_name, check_prefix, is_object_name
from tests.storage.contract import BAD_NAMES

TEXT = st.text() | st.text(alphabet="ab./-_A\0 \n", max_size=12)


@given(TEXT)
def test_a_name_never_leads_out_of_its_store(name: str) -> None:
    if is_object_name(name):
        joined = os.path.normpath(os.path.join("/store", name))

        assert joined == f"/store/{name}"
        assert name.isascii()
        assert not joined.startswith("/store/tmp/")


@given(TEXT, st.integers(0, 12))
def test_every_beginning_of_a_name_is_a_prefix(name: str, length: int) -> None:
    if is_object_name(name):
        assert check_object_name(name) == name
        assert check_prefix(name[:length]) == name[:length]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_the_message_shows_only_plain_characters(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check_object_name(name)

    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
