"""
Escrow: keys wrapped for somebody who is needed only when the master key is lost.

*Shares*: a random X25519 key whose 32 private bytes are split m of n by Shamir's scheme, as words
(SLIP-39, by the reference implementation). The ring key is sealed to its public half: an ephemeral
X25519 key, HKDF-SHA-256 and AES-256-GCM, as in HPKE (RFC 9180) in its mode with a pre-shared key.
That is derived of the private half once, and kept in the keyring: the public half is in the bucket,
and who writes there could otherwise wrap keys of their own for the shares. *RSA*: the ring key
under RSA-OAEP with SHA-256 (RFC 8017) for a public key of 3072 bits or more; who wrapped it cannot
be told. Neither needs the private half to take part in the next generation of a keyring.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from kryonix_backup.crypto.keyring import Recipient
from kryonix_backup.errors import ConfigError, Damaged, KeyRefused
from kryonix_backup.settings import Secret

SHARES = "escrow-shares"
RSA = "escrow-rsa"
MOST_SHARES = 16  # of SLIP-39
_LEAST_RSA_BITS = 3072
_INFO = b"kryonix-backup escrow v1"
_SENDER_INFO = b"kryonix-backup escrow sender v1"
_EXPONENT = 1  # 20,000 iterations; a share that names 15 would take minutes
_ONCE = bytes(12)  # the key is used for one message only


class Split(NamedTuple):
    """
    A fresh escrow: whom to wrap for, and the words of each share, shown once and never kept.

    ``sender`` is for the keyring, to wrap for the same shares again.
    """

    recipient: Recipient
    shares: tuple[Secret, ...]
    sender: Secret


def split(threshold: int, count: int) -> Split:
    """An escrow that ``threshold`` of ``count`` shares open; raises ConfigError."""
    from shamir_mnemonic import generate_mnemonics

    if not 2 <= threshold <= count <= MOST_SHARES:
        raise ConfigError(
            f"{threshold} of {count} is no way to split a key",
            f"Ask for 2 shares or more, of {MOST_SHARES} at most.",
        )
    private = X25519PrivateKey.generate()
    (words,) = generate_mnemonics(
        1, [(threshold, count)], private.private_bytes_raw(), iteration_exponent=_EXPONENT
    )
    sender = _sender(private)
    return Split(
        _SharesRecipient(private.public_key(), threshold, count, sender),
        tuple(Secret(share) for share in words),
        sender,
    )


class SharesKeyStore:
    """The escrow that enough shares open."""

    kind = SHARES

    def __init__(self, shares: Sequence[Secret]) -> None:
        """Raises KeyRefused where they are too few, of different escrows, or mistyped."""
        from shamir_mnemonic import MnemonicError

        words = [" ".join(share.reveal().decode("utf-8", "replace").split()) for share in shares]
        try:
            self._private = X25519PrivateKey.from_private_bytes(_combined(words))
        except (MnemonicError, ValueError):
            # Not the library's own words: some of them repeat a share.
            raise KeyRefused(
                f"these {len(words)} shares open no escrow: too few, mistyped, or of several",
                "Give as many different shares as were asked for when the escrow was made.",
            ) from None

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        """Raises KeyRefused: an escrow is for recovery, never the master of new keyrings."""
        raise KeyRefused("an escrow wraps no keys as a master")

    def unwrap(self, recipient: Mapping[str, Any], context: bytes) -> Secret:
        """The key again; raises KeyRefused."""
        try:
            ephemeral, wrapped = (_bytes(recipient[name]) for name in ("ephemeral", "wrapped"))
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
            public = self._private.public_key().public_bytes_raw()
            key = _derived(shared, _sender(self._private), ephemeral, public)
            return Secret(AESGCM(key).decrypt(_ONCE, wrapped, context))
        except (KeyError, TypeError, ValueError, InvalidTag) as error:
            raise KeyRefused("these shares do not open this repository's keys") from error


class RsaKeyStore:
    """The escrow that an RSA private key opens."""

    kind = RSA

    def __init__(self, pem: Secret, password: Secret | None = None) -> None:
        """Raises KeyRefused where it is no RSA key in PEM, or needs another password."""
        try:
            key = load_pem_private_key(pem.reveal(), password.reveal() if password else None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyRefused(
                "the escrow's private key cannot be read",
                "Give an RSA private key in PEM; a password of it in KRYONIX_ESCROW_PASSWORD.",
            ) from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise KeyRefused("the escrow's private key is not an RSA key")
        self._private = key

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        """Raises KeyRefused: an escrow is for recovery, never the master of new keyrings."""
        raise KeyRefused("an escrow wraps no keys as a master")

    def unwrap(self, recipient: Mapping[str, Any], context: bytes) -> Secret:
        """The key again; raises KeyRefused."""
        try:
            return Secret(self._private.decrypt(_bytes(recipient["wrapped"]), _oaep(context)))
        except (KeyError, TypeError, ValueError) as error:
            raise KeyRefused("this RSA key does not open this repository's keys") from error


def rsa_recipient(pem: bytes) -> Recipient:
    """An escrow for whoever has the private half of a public key in PEM; raises ConfigError."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError("this is no public key in PEM") from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _LEAST_RSA_BITS:
        raise ConfigError(f"an escrow needs an RSA key of {_LEAST_RSA_BITS} bits or more")
    return _RsaRecipient(key)


def escrow_of(recipient: Mapping[str, Any], sender: Secret | None = None) -> Recipient | None:
    """
    The escrow that a stored recipient stands for, to wrap the next ring key for; None for others.

    ``sender`` is that of its shares. Raises Damaged, also where it is missing.
    """
    try:
        if recipient["store"] == SHARES:
            if sender is None:
                raise Damaged("a keyring has lost what shows its shares who wraps for them")
            public = X25519PublicKey.from_public_bytes(_bytes(recipient["public"]))
            threshold, count = int(recipient["threshold"]), int(recipient["count"])
            return _SharesRecipient(public, threshold, count, sender)
        if recipient["store"] == RSA:
            key = load_der_public_key(_bytes(recipient["public"]))
            assert isinstance(key, rsa.RSAPublicKey)  # made by `rsa_recipient`, and authenticated
            return _RsaRecipient(key)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged("an escrow of a keyring has the wrong form") from error
    return None


class _SharesRecipient:
    kind = SHARES

    def __init__(self, public: X25519PublicKey, threshold: int, count: int, sender: Secret) -> None:
        self._sender = sender
        self._public = public
        self._threshold = threshold
        self._count = count

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        ephemeral = X25519PrivateKey.generate()
        mine, theirs = ephemeral.public_key().public_bytes_raw(), self._public.public_bytes_raw()
        derived = _derived(ephemeral.exchange(self._public), self._sender, mine, theirs)
        return {
            "store": SHARES,
            "public": _text(theirs),
            "threshold": self._threshold,
            "count": self._count,
            "ephemeral": _text(mine),
            "wrapped": _text(AESGCM(derived).encrypt(_ONCE, key.reveal(), context)),
        }


class _RsaRecipient:
    kind = RSA

    def __init__(self, public: rsa.RSAPublicKey) -> None:
        self._public = public

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        der = self._public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        wrapped = self._public.encrypt(key.reveal(), _oaep(context))
        return {"store": RSA, "public": _text(der), "wrapped": _text(wrapped)}


def _combined(words: Sequence[str]) -> bytes:
    """What the shares make: those that are needed of them, each once."""
    from shamir_mnemonic import Share, combine_mnemonics

    different = list(dict.fromkeys(words))
    shares = [Share.from_mnemonic(each) for each in different]
    if any(share.iteration_exponent > _EXPONENT for share in shares):
        raise ValueError("a share that asks for more work than any that we make")
    needed = max((share.member_threshold for share in shares), default=0)
    return bytes(combine_mnemonics(different[:needed]))


def _sender(private: X25519PrivateKey) -> Secret:
    return Secret(HKDF(SHA256(), 32, None, _SENDER_INFO).derive(private.private_bytes_raw()))


def _derived(shared: bytes, sender: Secret, ephemeral: bytes, public: bytes) -> bytes:
    return HKDF(SHA256(), 32, sender.reveal(), _INFO + ephemeral + public).derive(shared)


def _oaep(context: bytes) -> padding.OAEP:
    """OAEP whose label is the context: with another one it does not open."""
    label = hashlib.sha256(context).digest()
    return padding.OAEP(padding.MGF1(SHA256()), SHA256(), label)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
