"""A secret shows nowhere."""

from __future__ import annotations

import pickle

import pytest

from kryonix_backup.secret import Secret
from kryonix_backup.settings import RegionSettings, RootKey


def test_a_secret_neither_prints_nor_pickles() -> None:
    secret = Secret("correct horse")

    assert "horse" not in f"{secret} {secret!r} {RootKey(passphrase=secret)}"
    assert "horse" not in repr(RegionSettings("primary", "s3://b", "id", secret))  # type: ignore[arg-type]
    assert secret.reveal() == b"correct horse"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
