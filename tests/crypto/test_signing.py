"""Signatures of the audit key."""

from __future__ import annotations

import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kryonix_backup.crypto.signing import Signer, is_signed
from kryonix_backup.settings import Secret

SIGNER = Signer(Secret(bytes(range(32))))


def test_anyone_with_the_public_key_can_check() -> None:
    signature = SIGNER.sign(b"digest")

    assert is_signed(SIGNER.public, signature, b"digest")
    message = b"kryonix-backup audit v1\0" + b"digest"
    Ed25519PublicKey.from_public_bytes(SIGNER.public).verify(signature, message)


def test_nothing_else_passes() -> None:
    signature = SIGNER.sign(b"digest")

    assert not is_signed(SIGNER.public, signature, b"other")
    assert not is_signed(SIGNER.public, b"\xff" + signature[1:], b"digest")
    assert not is_signed(Signer(Secret(b"x" * 32)).public, signature, b"digest")
    assert not is_signed(b"short", signature, b"digest")


def test_a_signer_is_never_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(SIGNER)
