from __future__ import annotations

import pytest
from pydantic import ValidationError

from blocks.logo import logo_url


def test_the_picture_is_on_the_local_server() -> None:
    assert str(logo_url({})) == "http://127.0.0.1:4200/kryonix/logo.svg"


def test_the_picture_can_be_elsewhere() -> None:
    assert str(logo_url({"KRYONIX_LOGO_URL": "https://h/l.png"})) == "https://h/l.png"


def test_only_http_is_taken() -> None:
    with pytest.raises(ValidationError):
        logo_url({"KRYONIX_LOGO_URL": "data:image/png;base64,AAAA"})
