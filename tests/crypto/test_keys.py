"""A key object opens for its owner, under its master, as it was written, and not otherwise."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest

from kryonix_backup.crypto.keys import (
    KeyRecord,
    KeyState,
    Owner,
    Purpose,
    TenantKeys,
    open_key,
)
from kryonix_backup.crypto.stores.root import RootKeyStore, master_from
from kryonix_backup.errors import Damaged, KeyRefused, KeyUnusable, KryonixError
from kryonix_backup.model import KeyId, RepositoryId, TenantId
from kryonix_backup.settings import RootKey, Secret
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.repositories import key_file

OWNER = Owner(RepositoryId("0123456789abcdef" * 2), TenantId("acme"))

# A key object of format 1, wrapped for a key file of 32 times the byte 7.
STORED: dict[str, Any] = {
    "algorithm": "HKDF-SHA-256, AES-256-GCM",
    "created": "2026-11-23T12:00:00+00:00",
    "epoch": 1,
    "key": "6f2e4d2f1c0b4a598877665544332211",
    "magic": "kryonix-key",
    "purpose": "data",
    "recipients": [
        {
            "nonce": "AAECAwQFBgcICQoL",
            "salt": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "store": "key-file",
            "wrapped": "kbbrJpCcDNx59FEkK6JfH4Iyi/7GfO8z3C4RbbiAMMuOARXPY4bvmDojToFWIb/O",
        }
    ],
    "version": 1,
}
NAME = f"keys/{STORED['key']}"


def _plain(stored: object) -> bytes:
    return json.dumps(stored).encode()


def _edited(**changes: object) -> dict[str, Any]:
    return {**STORED, **changes}


def _recipient(**changes: object) -> dict[str, Any]:
    return _edited(recipients=[{**STORED["recipients"][0], **changes}])


def _context() -> bytes:
    bound = {name: value for name, value in STORED.items() if name != "recipients"}
    whole = bound | {"repository": OWNER.repository, "tenant": OWNER.tenant}
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()


def test_a_stored_key_of_format_1_opens() -> None:
    record = open_key(NAME, _plain(STORED), OWNER, key_file())

    assert record.secret.reveal() == bytes(range(32))
    assert (record.purpose, record.epoch, record.created) == (Purpose.DATA, 1, NOON)


@pytest.mark.parametrize(
    ("stored", "error"),
    [
        (_edited(algorithm="none"), KeyRefused),
        (_edited(created="2026-11-23T12:00:01+00:00"), KeyRefused),
        (_edited(epoch=2), KeyRefused),
        (_edited(purpose="id"), KeyRefused),
        (_edited(unexpected=1), KeyRefused),
        (_edited(key="0" * 32), Damaged),
        (_edited(magic="other"), Damaged),
        (_edited(version=2), Damaged),
        (_edited(purpose="signing"), Damaged),
        (_edited(created="yesterday"), Damaged),
        (_edited(created="2026-11-23T12:00:00"), Damaged),
        (_edited(created=7), Damaged),
        (_edited(epoch=float("inf")), Damaged),
        (_edited(epoch=None), Damaged),
        (_edited(recipients=[]), KeyRefused),
        (_edited(recipients=None), Damaged),
        (_edited(recipients=7), Damaged),
        (_edited(recipients="key-file"), Damaged),
        (_edited(recipients={"store": "key-file"}), Damaged),
        (_edited(recipients=[{}]), Damaged),
        (_recipient(store="passphrase"), KeyRefused),
        (_recipient(salt="AAAA"), KeyRefused),
        (_recipient(salt="?"), KeyRefused),
        (_recipient(salt=None), KeyRefused),
        (_recipient(nonce="AAECAwQFBgcICQoM"), KeyRefused),
        (_recipient(nonce="AAEC"), KeyRefused),
        (_recipient(nonce=""), KeyRefused),
        (_recipient(wrapped=""), KeyRefused),
        (_recipient(wrapped="AAAA"), KeyRefused),
        (_recipient(wrapped=7), KeyRefused),
        (_recipient(iterations=99_999), KeyRefused),
        (_recipient(iterations=10_000_001), KeyRefused),
        (_recipient(iterations=-1), KeyRefused),
        (_recipient(iterations="many"), KeyRefused),
        (_recipient(iterations=float("inf")), KeyRefused),
        ([], Damaged),
        ("text", Damaged),
        (None, Damaged),
        ({}, Damaged),
    ],
)
def test_an_edited_key_object_does_not_open(stored: object, error: type[KryonixError]) -> None:
    with pytest.raises(error, match=NAME):
        open_key(NAME, _plain(stored), OWNER, key_file())


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 50_000])
def test_what_is_no_key_object_is_damaged(body: bytes) -> None:
    with pytest.raises(Damaged, match=NAME):
        open_key(NAME, body, OWNER, key_file())


@pytest.mark.parametrize(
    "owner",
    [
        Owner(OWNER.repository, TenantId("globex")),
        Owner(RepositoryId("f" * 32), OWNER.tenant),
    ],
)
def test_another_owner_is_refused(owner: Owner) -> None:
    with pytest.raises(KeyRefused, match=str(owner.tenant)):
        open_key(NAME, _plain(STORED), owner, key_file())


def test_another_master_is_refused() -> None:
    with pytest.raises(KeyRefused, match="wrong key-file"):
        open_key(NAME, _plain(STORED), OWNER, key_file(8))


def test_recipients_of_another_kind_are_named() -> None:
    passphrase = master_from(RootKey(passphrase=Secret("correct horse")))

    with pytest.raises(KeyRefused, match=f"{NAME} is wrapped for key-file, not for a passphrase"):
        open_key(NAME, _plain(STORED), OWNER, passphrase)


def test_any_recipient_that_opens_is_enough() -> None:
    secret, other = Secret(bytes(32)), Secret(bytes([1]) * 32)
    stored = _edited(
        recipients=[key_file(9).wrap(other, _context()), key_file(8).wrap(secret, _context())]
    )

    assert open_key(NAME, _plain(stored), OWNER, key_file(8)).secret.reveal() == bytes(32)


def test_a_wrapped_key_of_another_length_is_damaged() -> None:
    recipient = key_file().wrap(Secret(b"short"), _context())

    with pytest.raises(Damaged, match=NAME):
        open_key(NAME, _plain(_edited(recipients=[recipient])), OWNER, key_file())


def test_a_passphrase_opens_what_it_wrapped_and_a_wrong_one_does_not() -> None:
    root = RootKeyStore(RootKey(passphrase=Secret("correct horse")), iterations=100_000)
    stored = _edited(recipients=[root.wrap(Secret(bytes(32)), _context())])

    right = master_from(RootKey(passphrase=Secret("correct horse")))
    wrong = master_from(RootKey(passphrase=Secret("correct horse ")))

    assert open_key(NAME, _plain(stored), OWNER, right).id == STORED["key"]
    with pytest.raises(KeyRefused, match="wrong passphrase"):
        open_key(NAME, _plain(stored), OWNER, wrong)


def _record(purpose: Purpose, epoch: int, state: KeyState = KeyState.ACTIVE) -> KeyRecord:
    secret = Secret(bytes([epoch]) * 32)
    return KeyRecord(KeyId(f"{epoch:032x}"), purpose, epoch, NOON, secret, state)


def test_the_newest_epoch_seals_and_every_epoch_opens() -> None:
    ids, old, new = _record(Purpose.ID, 9), _record(Purpose.DATA, 1), _record(Purpose.DATA, 2)

    keys = TenantKeys([new, ids, old])

    assert keys.current is new
    assert keys.data_key(old.id) is old.secret
    with pytest.raises(Damaged, match=ids.id):
        keys.data_key(ids.id)


@pytest.mark.parametrize(
    ("state", "opens", "seals"),
    [
        (KeyState.PRE_ACTIVE, False, False),
        (KeyState.ACTIVE, True, True),
        (KeyState.DECRYPT_ONLY, True, False),
        (KeyState.SUSPENDED, False, False),
        (KeyState.COMPROMISED, True, False),
        (KeyState.DESTROYED, False, False),
    ],
)
def test_the_state_of_a_key_says_what_may_be_done(
    state: KeyState, opens: bool, seals: bool
) -> None:
    record = _record(Purpose.DATA, 2, state)
    keys = TenantKeys([_record(Purpose.ID, 1), record])

    if opens:
        assert keys.data_key(record.id) is record.secret
    else:
        gone = state is KeyState.DESTROYED  # then it is lost, and nobody can allow it again
        error: type[KryonixError] = Damaged if gone else KeyUnusable
        with pytest.raises(
            error, match=f"epoch 2.*{'was destroyed' if gone else f'{state.value} since'}"
        ):
            keys.data_key(record.id)
    if seals:
        assert keys.current is record
    else:
        with pytest.raises(KeyUnusable, match="no data key"):
            assert keys.current


def test_a_key_that_seals_no_more_makes_way_for_an_older_one_that_does() -> None:
    old, new = _record(Purpose.DATA, 1), _record(Purpose.DATA, 2, KeyState.SUSPENDED)

    assert TenantKeys([_record(Purpose.ID, 1), old, new]).current is old


@pytest.mark.parametrize(
    "records",
    [
        [],
        [_record(Purpose.ID, 1)],
        [_record(Purpose.DATA, 1)],
        [_record(Purpose.DATA, 1), _record(Purpose.ID, 1), _record(Purpose.ID, 2)],
    ],
)
def test_a_set_of_keys_is_whole_or_refused(records: list[KeyRecord]) -> None:
    with pytest.raises(Damaged):
        TenantKeys(records)


def test_keys_neither_print_nor_pickle() -> None:
    record = _record(Purpose.DATA, 7)
    keys = TenantKeys([record, _record(Purpose.ID, 1)])

    for holder in (record, keys, record.secret):
        assert "070707" not in repr(holder)
        assert "\\x07" not in repr(holder)
        with pytest.raises(TypeError):
            pickle.dumps(holder)


def test_what_others_change_is_taken_up() -> None:
    ids, first = _record(Purpose.ID, 1), _record(Purpose.DATA, 2)
    second = replace(_record(Purpose.DATA, 3), id=KeyId("3" * 32))
    newer: list[list[KeyRecord] | None] = [
        None,
        [ids, replace(first, state=KeyState.SUSPENDED), second],
    ]
    keys = TenantKeys([ids, first], lambda: newer.pop(0) if newer else None)

    keys.refresh()
    assert keys.current is first
    assert keys.data_key(second.id) is second.secret, "an epoch that is not known is asked for"
    assert keys.current is second
    keys.check_sealed([second.id])
    for lost in (first.id, KeyId("4" * 32)):
        with pytest.raises(KeyUnusable, match="since this began"):
            keys.check_sealed([second.id, lost])
