"""A secret shows nowhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from kryonix_backup.errors import SecretMissing
from kryonix_backup.secret import Secret, first_line, read_secret
from kryonix_backup.settings import PRIMARY, RegionSettings, RootKey


def test_a_secret_neither_prints_nor_pickles() -> None:
    secret = Secret("correct horse")

    assert "horse" not in f"{secret} {secret!r} {RootKey(passphrase=secret)}"
    assert "horse" not in repr(RegionSettings(PRIMARY, "s3://b", "id", secret))
    assert secret.reveal() == b"correct horse"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_secret_is_a_files_first_line_or_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"correct \xff horse\nnot this\n")

    assert first_line("PIN", "A_PIN_FILE", str(file)).reveal() == b"correct \xff horse"
    assert read_secret("A_KEY_FILE", str(file)) == file.read_bytes()


def test_a_file_without_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretMissing, match=r"A_PIN_FILE names .*none: No such file"):
        read_secret("A_PIN_FILE", str(tmp_path / "none"))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SecretMissing, match=r"the PIN file .*empty is empty"):
        first_line("PIN", "A_PIN_FILE", str(tmp_path / "empty"))
