"""What cannot be promised is refused, never ignored."""

from __future__ import annotations

import pytest

from kryonix_backup.crypto.fips import require_fips
from kryonix_backup.errors import KeyRefused
from kryonix_backup.testing.repositories import ACME


def test_fips_is_refused_with_every_reason_and_a_way_out() -> None:
    with pytest.raises(KeyRefused) as caught:
        require_fips(ACME)

    for reason in ("tenant acme", "OpenSSL", "FIPS mode", "certificate", "BLAKE3"):
        assert reason in caught.value.message
    assert "'fips: true'" in caught.value.hint
