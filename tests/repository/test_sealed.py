"""One content, sealed as one: bounded, and bound to its name."""

from __future__ import annotations

import pytest

from kryonix_backup.crypto.keyring import first_keyring
from kryonix_backup.crypto.keys import TenantKeys
from kryonix_backup.crypto.seal import Kind, seal_object
from kryonix_backup.errors import Damaged
from kryonix_backup.model import RepositoryId
from kryonix_backup.repository.sealed import open_content, seal_content
from kryonix_backup.testing.clock import FixedClock

KEYS = TenantKeys(first_keyring(FixedClock().now()).records)
REPOSITORY = RepositoryId("0" * 32)


@pytest.mark.parametrize("content", [b"", b"x", b"word " * 10_000, bytes(range(256))])
def test_content_comes_back(content: bytes) -> None:
    sealed = seal_content(Kind.AUDIT, "audit/x", content, KEYS, REPOSITORY)

    assert open_content(Kind.AUDIT, "audit/x", sealed, KEYS, REPOSITORY) == content
    for kind, name in ((Kind.AUDIT, "audit/y"), (Kind.INDEX, "audit/x")):
        with pytest.raises(Damaged):
            open_content(kind, name, sealed, KEYS, REPOSITORY)


@pytest.mark.parametrize(
    "plain", [b"", b"\x09" + bytes(8), bytes(1) + b"\xff" * 8, bytes(8) + b"\5abc"]
)
def test_what_has_another_form_is_refused(plain: bytes) -> None:
    sealed = seal_object(Kind.AUDIT, "audit/x", plain, KEYS, REPOSITORY)
    with pytest.raises(Damaged):
        open_content(Kind.AUDIT, "audit/x", sealed, KEYS, REPOSITORY)
