from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.crypto.stores.encoding import from_text, to_text


@given(st.binary())
def test_bytes_come_back(value: bytes) -> None:
    assert from_text(to_text(value)) == value


@given(st.text(alphabet="ABab01+/=_- \n") | st.text())
def test_no_two_texts_mean_the_same(text: str) -> None:
    try:
        value = from_text(text)
    except ValueError:
        return

    assert to_text(value) == text


@pytest.mark.parametrize("text", ["QQ", "QR==", "QQ==\n", "Q Q=", "é"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_text(text)
