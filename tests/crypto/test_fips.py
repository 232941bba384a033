"""What cannot be promised is refused, never ignored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kryonix_backup.crypto.fips import check_fips
from kryonix_backup.errors import KeyRefused
from kryonix_backup.settings import KeySettings
from kryonix_backup.testing.repositories import settings_of


def test_fips_is_refused_with_every_reason_and_a_way_out() -> None:
    with pytest.raises(KeyRefused) as caught:
        check_fips(replace(settings_of("files"), keys=KeySettings(fips=True)))

    for reason in ("tenant acme", "OpenSSL", "FIPS mode", "certificate", "BLAKE3"):
        assert reason in caught.value.message
    assert "'fips: true'" in caught.value.hint


def test_who_does_not_ask_for_it_goes_on() -> None:
    check_fips(settings_of("files"))
