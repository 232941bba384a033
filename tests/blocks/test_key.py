from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from blocks.key import KeyBlock
from kryonix_backup.errors import SecretMissing, UsageError
from kryonix_backup.model import tenant_id

ACME = tenant_id("acme")


def test_a_variable_of_the_worker_holds_the_passphrase() -> None:
    block = KeyBlock(passphrase_variable="ACME_ROOT")

    root = block.to_settings({"ACME_ROOT": "open sesame", "KRYONIX_PASSPHRASE": "no"}, ACME)

    assert root.passphrase is not None
    assert root.passphrase.reveal() == b"open sesame"


def test_a_file_of_the_worker_holds_the_passphrase(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("open sesame\n")

    root = KeyBlock(passphrase_file=str(tmp_path / "root")).to_settings({}, ACME)

    assert root.passphrase is not None
    assert root.passphrase.reveal() == b"open sesame"


def test_a_key_file_of_the_worker_holds_the_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k" * 32)

    root = KeyBlock(key_file=str(tmp_path / "key")).to_settings({}, ACME)

    assert root.key_file is not None
    assert root.key_file.reveal() == b"k" * 32


def test_an_empty_block_leaves_it_to_the_workers_environment() -> None:
    root = KeyBlock().to_settings({"KRYONIX_ACME_PASSPHRASE": "of acme"}, ACME)

    assert root.passphrase is not None
    assert root.passphrase.reveal() == b"of acme"


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(SecretMissing, match="ACME_ROOT"):
        KeyBlock(passphrase_variable="ACME_ROOT").to_settings({}, ACME)


def test_two_places_are_one_too_many(tmp_path: Path) -> None:
    block = KeyBlock(passphrase_file=str(tmp_path / "a"), key_file=str(tmp_path / "b"))

    with pytest.raises(UsageError):
        block.to_settings({}, ACME)


def test_a_passphrase_typed_into_the_variables_field_is_refused() -> None:
    with pytest.raises(ValidationError) as refused:
        KeyBlock(passphrase_variable="correct horse battery")
    assert "correct" not in str(refused.value)


HSM = "pkcs11:///usr/lib/p11.so?token=a"


@pytest.mark.parametrize("by", ["variable", "file", "worker"])
def test_an_hsm_is_named_and_its_pin_is_on_the_worker(tmp_path: Path, by: str) -> None:
    (tmp_path / "pin").write_text("open sesame\n")
    block = KeyBlock(
        store=HSM,
        pin_variable="ACME_HSM" if by == "variable" else None,
        pin_file=str(tmp_path / "pin") if by == "file" else None,
    )
    env = {"KRYONIX_ACME_PASSPHRASE": "not this", "KRYONIX_KEY_FILE": "nor this"}
    if by == "worker":
        env |= {"KRYONIX_ACME_PIN": "open sesame"}
    else:
        env |= {"ACME_HSM": "open sesame", "KRYONIX_ACME_PIN": "no", "KRYONIX_PIN_FILE": "no"}

    root = block.to_settings(env, ACME)

    assert root.store is not None
    assert root.store.url == HSM
    assert root.store.pin is not None
    assert root.store.pin.reveal() == b"open sesame"


def test_a_kms_is_named_and_its_credentials_are_on_the_worker() -> None:
    env = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}

    root = KeyBlock(store="kms://?region=us-east-1").to_settings(env, ACME)

    assert root.store is not None
    assert root.store.access_key_id == "id"


@pytest.mark.parametrize(
    "store",
    [
        HSM + "&pin=1234",
        HSM + "&pin-value=1234",
        "kms://KEY:hunter2@acme?region=us-east-1",
        "kms://?region=us-east-1&secret_access_key=hunter2",
        "file:///srv",
    ],
)
def test_a_secret_in_the_address_is_never_saved(store: str) -> None:
    with pytest.raises(ValidationError):
        KeyBlock(store=store)
