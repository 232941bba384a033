"""An escrow opens with enough shares or with its private key, and with nothing else."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from shamir_mnemonic import Share

from kryonix_backup.crypto.stores.escrow import (
    RsaKeyStore,
    SharesKeyStore,
    escrow_of,
    rsa_recipient,
    split,
)
from kryonix_backup.errors import ConfigError, Damaged, KeyRefused
from kryonix_backup.settings import Secret

KEY, CONTEXT = Secret(bytes(range(32))), b"whose key it is"
PRIVATE = rsa.generate_private_key(65537, 3072)


def _public(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _pem(password: bytes | None = None) -> Secret:
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    return Secret(PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))


def test_any_shares_that_are_enough_open_it() -> None:
    recipient, shares, _ = split(3, 5)
    stored = recipient.wrap(KEY, CONTEXT)

    assert len(shares) == 5
    assert (stored["threshold"], stored["count"]) == (3, 5)
    for chosen in itertools.combinations(shares, 3):
        opened = SharesKeyStore(chosen).unwrap(stored, CONTEXT)
        assert opened.reveal() == KEY.reveal()


def test_fewer_shares_or_others_open_nothing() -> None:
    recipient, shares, _ = split(3, 5)
    _, others, _ = split(3, 5)
    mistyped = Secret(shares[0].reveal().replace(b" ", b" academic ", 1))

    for given in (
        [],
        shares[:2],
        [*shares[:2], others[2]],
        [shares[0]] * 3,
        [mistyped, *shares[1:3]],
    ):
        with pytest.raises(KeyRefused, match=f"these {len(given)} shares") as caught:
            SharesKeyStore(given)
        for share in given:
            assert share.reveal().decode() not in f"{caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(KeyRefused):
        SharesKeyStore(others[:3]).unwrap(recipient.wrap(KEY, CONTEXT), CONTEXT)


def test_more_shares_than_are_needed_open_it_too() -> None:
    recipient, shares, _ = split(2, 4)

    opened = SharesKeyStore([*shares, shares[0]]).unwrap(recipient.wrap(KEY, CONTEXT), CONTEXT)

    assert opened.reveal() == KEY.reveal()


def test_a_share_that_asks_for_minutes_of_work_is_refused_at_once() -> None:
    _, shares, _ = split(2, 2)
    slow = [
        Secret(
            replace(Share.from_mnemonic(each.reveal().decode()), iteration_exponent=15).mnemonic()
        )
        for each in shares
    ]
    started = time.monotonic()

    with pytest.raises(KeyRefused):
        SharesKeyStore(slow)

    assert time.monotonic() - started < 5


def test_blanks_and_lines_between_the_words_do_not_matter() -> None:
    recipient, shares, _ = split(2, 2)
    typed = [Secret(share.reveal().replace(b" ", b"\n  ") + b"\n") for share in shares]

    opened = SharesKeyStore(typed).unwrap(recipient.wrap(KEY, CONTEXT), CONTEXT)

    assert opened.reveal() == KEY.reveal()


@pytest.mark.parametrize(("threshold", "count"), [(1, 3), (0, 0), (4, 3), (2, 17), (-1, 2)])
def test_what_is_no_way_to_split_is_refused(threshold: int, count: int) -> None:
    with pytest.raises(ConfigError):
        split(threshold, count)


@pytest.mark.parametrize("password", [None, b"of the key"])
def test_the_private_key_opens_it(password: bytes | None) -> None:
    stored = rsa_recipient(_public(PRIVATE)).wrap(KEY, CONTEXT)

    store = RsaKeyStore(_pem(password), Secret(password) if password else None)

    assert store.unwrap(stored, CONTEXT).reveal() == KEY.reveal()
    for changed in (stored | {"wrapped": ""}, stored | {"wrapped": "?"}, {}, stored):
        with pytest.raises(KeyRefused):
            store.unwrap(changed, b"another context" if changed is stored else CONTEXT)


def test_what_is_no_such_key_is_refused() -> None:
    for pem, password in ((Secret(b"text"), None), (_pem(b"x"), None), (_pem(b"x"), Secret(b"y"))):
        with pytest.raises(KeyRefused, match="cannot be read"):
            RsaKeyStore(pem, password)
    for public in (b"text", _public(ed25519.Ed25519PrivateKey.generate()),
                   _public(rsa.generate_private_key(65537, 2048))):  # fmt: skip
        with pytest.raises(ConfigError):
            rsa_recipient(public)


def test_a_stored_escrow_wraps_the_next_key_too() -> None:
    first, shares, sender = split(2, 3)
    for recipient, store, shown in (
        (first, SharesKeyStore(shares[:2]), sender),
        (rsa_recipient(_public(PRIVATE)), RsaKeyStore(_pem()), None),
    ):
        again = escrow_of(recipient.wrap(Secret(b"1" * 32), CONTEXT), shown)
        assert again is not None
        stored = again.wrap(KEY, b"next")
        assert store.unwrap(stored, b"next").reveal() == KEY.reveal()
        with pytest.raises(KeyRefused):
            store.unwrap(stored, CONTEXT)
        with pytest.raises(KeyRefused, match="as a master"):
            store.wrap(KEY, CONTEXT)


def test_other_recipients_are_no_escrow() -> None:
    assert escrow_of({"store": "passphrase"}) is None
    for wrong in ({}, {"store": "escrow-shares"}, {"store": "escrow-rsa", "public": "AAAA"}):
        with pytest.raises(Damaged):
            escrow_of(wrong)


def test_who_knows_the_public_half_alone_wraps_nothing_that_shares_open() -> None:
    recipient, shares, sender = split(2, 2)
    stored = recipient.wrap(KEY, CONTEXT)
    store = SharesKeyStore(shares)

    for guess in (b"", bytes(32), sender.reveal()[::-1]):
        forged = escrow_of(stored, Secret(guess))
        assert forged is not None
        with pytest.raises(KeyRefused):
            store.unwrap(forged.wrap(KEY, CONTEXT), CONTEXT)
    with pytest.raises(Damaged, match="who wraps"):
        escrow_of(stored)
