"""A passphrase or a key file wraps keys that only it unwraps."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import binary

from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.crypto.stores.root import (
    DEFAULT_ITERATIONS,
    LEAST_ITERATIONS,
    MOST_ITERATIONS,
    RootKeyStore,
    master_from,
)
from kryonix_backup.errors import KeyRefused
from kryonix_backup.settings import RootKey, Secret
from kryonix_backup.testing.repositories import key_file
from tests.crypto.stores.contract import KEY, KeyStoreContract, Place

SALT = base64.b64encode(bytes(range(32))).decode()
NONCE = base64.b64encode(bytes(range(12))).decode()

# Computed once by `cryptography` and `hashlib` alone: 00..1f wrapped with "context" bound to it.
BY_KEY_FILE = (
    "91b6eb26909c0cdc79f451242ba25f1f82328bfec67cef33"
    "dc2e116db88030cbe66abb437247f1d18abd798f1479dcf7"
)
BY_PASSPHRASE = (
    "6a3d477bbe7ce753a678a061fd142decd96508f3a2bf3e49"
    "b0faca7122149a537b9af3a71776adc1ca93a2e2f6e0058c"
)


def _recipient(wrapped: str, **more: object) -> dict[str, object]:
    text = base64.b64encode(bytes.fromhex(wrapped)).decode()
    return {"salt": SALT, "nonce": NONCE, "wrapped": text, **more}


def _passphrase(text: str, iterations: int = 100_000) -> RootKeyStore:
    return RootKeyStore(RootKey(passphrase=Secret(text)), iterations)


def test_what_a_key_file_wrapped_has_its_known_answer() -> None:
    key = key_file().unwrap(_recipient(BY_KEY_FILE, store="key-file"), b"context")

    assert key.reveal() == bytes(range(32))


def test_what_a_passphrase_wrapped_has_its_known_answer() -> None:
    recipient = _recipient(BY_PASSPHRASE, store="passphrase", iterations=100_000)

    assert _passphrase("correct horse").unwrap(recipient, b"context").reveal() == bytes(range(32))


@given(key=binary(min_size=32, max_size=32), context=binary(max_size=40))
def test_a_wrapped_key_opens_with_its_context_alone(key: bytes, context: bytes) -> None:
    recipient = key_file().wrap(Secret(key), context)

    assert key_file().unwrap(recipient, context).reveal() == key
    with pytest.raises(KeyRefused):
        key_file().unwrap(recipient, context + b"\0")
    with pytest.raises(KeyRefused):
        key_file(8).unwrap(recipient, context)


def test_more_iterations_than_were_used_do_not_open() -> None:
    recipient = _passphrase("correct horse").wrap(Secret(bytes(32)), b"")

    with pytest.raises(KeyRefused):
        _passphrase("correct horse").unwrap({**recipient, "iterations": 100_001}, b"")


def test_a_new_recipient_has_the_default_iterations_and_a_fresh_salt() -> None:
    root = RootKey(passphrase=Secret("correct horse"))

    recipients = [master_from(root).wrap(Secret(bytes(32)), b"") for _ in range(2)]

    assert {each["iterations"] for each in recipients} == {DEFAULT_ITERATIONS}
    assert recipients[0]["salt"] != recipients[1]["salt"]


def test_keys_of_one_repository_share_a_derivation_but_never_a_nonce() -> None:
    root = key_file()

    recipients = [root.wrap(Secret(bytes(32)), b"") for _ in range(50)]

    assert len({each["salt"] for each in recipients}) == 1
    assert len({each["nonce"] for each in recipients}) == 50


def test_new_keys_are_not_wrapped_more_weakly_than_the_default() -> None:
    """Whoever can write to the store cannot lower the cost of guessing the passphrase."""
    weak = _passphrase("correct horse").wrap(Secret(bytes(32)), b"")
    master = master_from(RootKey(passphrase=Secret("correct horse")))
    master.unwrap(weak, b"")

    assert master.wrap(Secret(bytes(32)), b"")["iterations"] >= DEFAULT_ITERATIONS


@pytest.mark.parametrize(
    "root",
    [
        RootKey(),
        RootKey(passphrase=Secret("a"), key_file=Secret(bytes(32))),
        RootKey(passphrase=Secret("")),
        RootKey(key_file=Secret(bytes(31))),
    ],
    ids=["none", "both", "empty passphrase", "short key file"],
)
def test_a_root_that_protects_nothing_is_refused(root: RootKey) -> None:
    with pytest.raises(KeyRefused):
        master_from(root)


@pytest.mark.parametrize("iterations", [LEAST_ITERATIONS - 1, MOST_ITERATIONS + 1])
def test_a_recipient_cannot_ask_for_another_amount_of_work(iterations: int) -> None:
    recipient = _passphrase("correct horse").wrap(Secret(bytes(32)), b"")

    with pytest.raises(KeyRefused, match="parameters that are not allowed"):
        _passphrase("correct horse").unwrap({**recipient, "iterations": iterations}, b"")


def test_too_few_iterations_are_refused() -> None:
    with pytest.raises(KeyRefused, match="99999"):
        _passphrase("correct horse", 99_999)


def test_a_master_neither_prints_nor_pickles() -> None:
    for master, secret in ((key_file(), "\\x07" * 4), (_passphrase("correct horse"), "correct")):
        master.wrap(Secret(bytes(32)), b"")
        assert secret not in repr(master) + repr(vars(master))
        with pytest.raises(TypeError):
            pickle.dumps(master)


class TestPassphrase(KeyStoreContract):
    """Fewer iterations than usual, because the contract derives a key for each changed byte."""

    @pytest.fixture
    def place(self) -> Place:
        root = RootKey(passphrase=Secret("correct horse battery"))
        env = {"KRYONIX_PASSPHRASE": "correct horse battery"}
        return Place(root, env, ("correct horse battery", repr(KEY)[2:-1]))

    @pytest.fixture
    def store(self, place: Place) -> KeyStore:
        return RootKeyStore(place.root, iterations=100_000)

    @pytest.fixture
    def stranger(self) -> KeyStore:
        return _passphrase("correct horse battery ")


class TestKeyFile(KeyStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        (tmp_path / "key").write_bytes(b"a key file of 32 bytes and a few")
        root = RootKey(key_file=Secret(b"a key file of 32 bytes and a few"))
        env = {"KRYONIX_KEY_FILE": str(tmp_path / "key")}
        return Place(root, env, ("a key file of", repr(KEY)[2:-1]))

    @pytest.fixture
    def stranger(self) -> KeyStore:
        return key_file()
