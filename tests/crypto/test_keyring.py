"""A keyring opens for each of its recipients, whole and for its owner, and not otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import data, integers

from kryonix_backup.crypto.keyring import (
    Keyring,
    first_keyring,
    new_key,
    open_keyring,
    seal_keyring,
)
from kryonix_backup.crypto.keys import KeyRecord, KeyState, Owner, Purpose
from kryonix_backup.crypto.stores.root import RootKeyStore, master_from
from kryonix_backup.errors import Damaged, KeyRefused, RepositoryError
from kryonix_backup.model import RepositoryId, TenantId
from kryonix_backup.settings import RootKey, Secret
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.repositories import key_file

OWNER = Owner(RepositoryId("0123456789abcdef" * 2), TenantId("acme"))
NAME = f"keys/{OWNER.repository}/00000003"
RECORDS = tuple(new_key(purpose, 1, NOON) for purpose in Purpose)
SINCE = NOON - timedelta(days=3)
BODY = seal_keyring(Keyring(3, NOON, SINCE, RECORDS, ()), [key_file(7), key_file(8)], OWNER)


def _facts(records: tuple[KeyRecord, ...]) -> list[tuple[Any, ...]]:
    return [
        (each.id, each.purpose, each.epoch, each.created, each.state, each.since,
         each.secret.reveal())
        for each in records
    ]  # fmt: skip


def _open(body: bytes, owner: Owner = OWNER, fill: int = 7) -> Keyring:
    return open_keyring(NAME, body, owner, key_file(fill))


@pytest.mark.parametrize("fill", [7, 8])
def test_it_opens_for_each_recipient(fill: int) -> None:
    keyring = _open(BODY, fill=fill)

    assert _facts(keyring.records) == _facts(RECORDS)
    assert (keyring.generation, keyring.written, keyring.master_since) == (3, NOON, SINCE)
    assert list(keyring.recipients) == json.loads(BODY)["recipients"]
    assert [row["store"] for row in keyring.recipients] == ["key-file", "key-file"]


@pytest.mark.parametrize("state", list(KeyState))
def test_states_are_kept(state: KeyState) -> None:
    changed = replace(RECORDS[0], state=state, changed=NOON + timedelta(days=3))

    keyring = _open(seal_keyring(Keyring(3, NOON, NOON, (changed,), ()), [key_file()], OWNER))

    assert _facts(keyring.records) == _facts((changed,))


def test_no_secret_of_it_is_readable() -> None:
    for record in RECORDS:
        assert record.secret.reveal() not in BODY
        assert record.id.encode() not in BODY  # nor which keys there are
        assert record.secret.reveal().hex() not in repr(_open(BODY))


@pytest.mark.parametrize(
    "owner",
    [replace(OWNER, tenant=TenantId("globex")), replace(OWNER, repository=RepositoryId("f" * 32))],
)
def test_another_owner_is_refused(owner: Owner) -> None:
    with pytest.raises(KeyRefused, match=str(owner.tenant)):
        _open(BODY, owner)


def test_another_master_is_refused() -> None:
    with pytest.raises(KeyRefused, match="wrong key-file"):
        _open(BODY, fill=9)
    with pytest.raises(KeyRefused, match="wrapped for key-file, not for a passphrase"):
        open_keyring(NAME, BODY, OWNER, master_from(RootKey(passphrase=Secret("horse"))))


def _edited(**changes: object) -> bytes:
    return json.dumps({**json.loads(BODY), **changes}).encode()


RECIPIENTS = json.loads(BODY)["recipients"]


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 4},
        {"written": "2026-11-23T12:00:01+00:00"},
        {"written": "2026-11-23T12:00:00"},
        {"master_since": "2026-11-23T12:00:01+00:00"},
        {"magic": "kryonix-key"},
        {"version": 2},
        {"extra": 1},
        {"keys": ""},
        {"keys": "AAAA"},
        {"keys": 7},
        {"recipients": RECIPIENTS[:1]},
        {"recipients": RECIPIENTS[::-1]},
        {"recipients": [*RECIPIENTS, RECIPIENTS[0]]},
        {"recipients": [*RECIPIENTS, {"store": "escrow"}]},
        {"recipients": []},
        {"recipients": None},
        {"recipients": [7]},
    ],
)
def test_an_edited_keyring_does_not_open(changes: dict[str, Any]) -> None:
    with pytest.raises(RepositoryError, match=NAME):
        _open(_edited(**changes))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 1000])
def test_what_is_no_keyring_is_damaged(body: bytes) -> None:
    with pytest.raises(Damaged, match=NAME):
        _open(body)


def test_the_first_has_an_active_key_for_each_purpose() -> None:
    first = first_keyring(NOON)

    assert (first.generation, first.written, first.master_since) == (1, NOON, NOON)
    assert [record.purpose for record in first.records] == list(Purpose)[:-1]
    assert {record.state for record in first.records} == {KeyState.ACTIVE}
    assert len({record.secret.reveal() for record in first.records}) == len(Purpose) - 1


def test_of_another_generation_it_is_not_taken() -> None:
    with pytest.raises(Damaged, match="its name says"):
        open_keyring(NAME[:-1] + "4", BODY, OWNER, key_file())


@given(data=data(), flip=integers(1, 255))
def test_one_changed_byte_is_noticed_or_means_the_same(data: Any, flip: int) -> None:
    at = data.draw(integers(0, len(BODY) - 1))
    body = bytearray(BODY)
    body[at] ^= flip

    try:
        keyring = _open(bytes(body))
    except RepositoryError:
        return
    assert _facts(keyring.records) == _facts(RECORDS)  # such as another kind of blank


def test_what_is_no_keyring_is_told_as_damage() -> None:
    for body in (b"", b"{}", b"[]", b'{"recipients": [7]}'):
        with pytest.raises(Damaged):
            _open(body)


def test_a_keyring_that_is_wrapped_without_end_is_refused_before_any_work() -> None:
    tried = []

    class Counting(RootKeyStore):
        def unwrap(self, recipient: Mapping[str, Any], context: bytes) -> Secret:
            tried.append(recipient)
            return super().unwrap(recipient, context)

    stored = json.loads(BODY)
    stored["recipients"] = stored["recipients"] * 1000

    with pytest.raises(Damaged, match="2000 times"):
        open_keyring(NAME, json.dumps(stored).encode(), OWNER,
                     Counting(RootKey(key_file=Secret(b"x" * 32))))  # fmt: skip
    assert tried == []
