"""An archive object opens as itself, for its tenant, and not with one bit changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers

from kryonix_backup.crypto.archive import open_archive, seal_archive
from kryonix_backup.crypto.keys import KeyRecord, KeyState, Purpose, TenantKeys
from kryonix_backup.errors import Damaged, FormatUnsupported, KeyUnusable
from kryonix_backup.model import KeyId, RepositoryId
from kryonix_backup.settings import Secret
from kryonix_backup.testing.clock import NOON

REPOSITORY, NAME = RepositoryId("0123456789abcdef" * 2), "archive/2026/bundle"


def _record(purpose: Purpose, epoch: int, state: KeyState = KeyState.ACTIVE) -> KeyRecord:
    return KeyRecord(
        KeyId(f"{purpose.value.encode().hex():0>30}{epoch:02x}"[-32:]),
        purpose, epoch, NOON, Secret(bytes([epoch]) * 32), state,
    )  # fmt: skip


def _keys(*archive: KeyRecord) -> TenantKeys:
    return TenantKeys([_record(Purpose.ID, 1), _record(Purpose.DATA, 1), *archive])


FIRST, SECOND = _record(Purpose.ARCHIVE, 1, KeyState.DECRYPT_ONLY), _record(Purpose.ARCHIVE, 2)
KEYS = _keys(FIRST, SECOND)


STORED = seal_archive(NAME, b"seven years", _keys(_record(Purpose.ARCHIVE, 1)), REPOSITORY)


@given(content=binary(max_size=200))
def test_what_was_sealed_opens(content: bytes) -> None:
    sealed = seal_archive(NAME, content, KEYS, REPOSITORY)

    assert open_archive(NAME, sealed, KEYS, REPOSITORY) == content
    assert sealed != seal_archive(NAME, content, KEYS, REPOSITORY)
    assert not content[:16] or len(content) < 16 or content not in sealed


def test_the_newest_epoch_seals_and_older_ones_open() -> None:
    assert bytes.fromhex(SECOND.id) in seal_archive(NAME, b"", KEYS, REPOSITORY)
    assert open_archive(NAME, STORED, KEYS, REPOSITORY) == b"seven years"


@given(at=integers(0, len(STORED) - 1), bit=integers(0, 7))
def test_one_changed_bit_is_noticed(at: int, bit: int) -> None:
    changed = bytearray(STORED)
    changed[at] ^= 1 << bit

    with pytest.raises((Damaged, FormatUnsupported)):
        open_archive(NAME, bytes(changed), KEYS, REPOSITORY)


@pytest.mark.parametrize("length", [0, 10, 71, 72, 103, 104, len(STORED) - 1, len(STORED) - 16])
def test_what_was_cut_is_noticed(length: int) -> None:
    with pytest.raises(Damaged):
        open_archive(NAME, STORED[:length], KEYS, REPOSITORY)


def test_padding_and_authentication_fail_alike() -> None:
    """Encrypt then MAC: whatever is wrong inside, the answer is the same, before decryption."""
    said = set()
    for at in (72, len(STORED) - 33, len(STORED) - 1):
        changed = bytearray(STORED)
        changed[at] ^= 1
        with pytest.raises(Damaged) as caught:
            open_archive(NAME, bytes(changed), KEYS, REPOSITORY)
        said.add(str(caught.value))
    assert len(said) == 1


def test_elsewhere_or_for_another_it_does_not_open() -> None:
    other = _keys(
        KeyRecord(FIRST.id, Purpose.ARCHIVE, 1, NOON, Secret(b"x" * 32)),
    )
    for name, keys, repository in (
        (f"{NAME}2", KEYS, REPOSITORY),
        (NAME, KEYS, RepositoryId("f" * 32)),
        (NAME, other, REPOSITORY),
        (NAME, _keys(SECOND), REPOSITORY),
    ):
        with pytest.raises(Damaged):
            open_archive(name, STORED, keys, repository)


def test_the_state_of_the_key_is_enforced() -> None:
    with pytest.raises(KeyUnusable, match="no archive key"):
        seal_archive(NAME, b"", _keys(), REPOSITORY)
    suspended = _keys(_record(Purpose.ARCHIVE, 1, KeyState.SUSPENDED))
    with pytest.raises(KeyUnusable):
        open_archive(NAME, STORED, suspended, REPOSITORY)
    with pytest.raises(KeyUnusable):
        seal_archive(NAME, b"", suspended, REPOSITORY)
