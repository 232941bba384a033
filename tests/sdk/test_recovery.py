"""Keys that somebody else wrapped for an escrow are not taken for the tenant's."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kryonix_backup.crypto.keyring import first_keyring, seal_keyring
from kryonix_backup.crypto.keys import KeyState, Owner
from kryonix_backup.crypto.stores.escrow import escrow_of
from kryonix_backup.errors import KeyRefused, RolledBack
from kryonix_backup.repository.keyrings import generations, newest_keyring
from kryonix_backup.repository.layout import keyring_name
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.keys import Keys
from kryonix_backup.sdk.recovery import check_own
from kryonix_backup.sdk.tenants import add_tenant, lost_keys, tenant_keys
from kryonix_backup.settings import Secret
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.clock import NOON, FixedClock
from tests.sdk.conftest import Machine


@dataclass
class Escrowed:
    """Acme with a backup and an escrow, 2 of 2, and a machine that has never seen it."""

    machine: Machine
    shares: list[Secret]
    owner: Owner
    bare: dict[str, str]

    @property
    def primary(self) -> ObjectStore:
        return self.machine.held.store(self.machine.settings.primary)

    def lost(self) -> Keys:
        regions = [self.machine.settings.primary]
        return lost_keys("acme", None, regions=regions, env=self.bare, clock=FixedClock())

    def forge(self) -> int:
        """A keyring of a stranger, who can write to the bucket and knows no key of it."""
        newest = newest_keyring(self.primary, self.owner)
        assert newest is not None
        recipients = json.loads(newest[1])["recipients"]
        found = (escrow_of(row, Secret(b"a guess")) for row in recipients)
        escrow = next(each for each in found if each is not None)
        generation = generations(self.primary, self.owner)[-1] + 1
        theirs = replace(first_keyring(NOON), generation=generation)
        name = keyring_name(self.owner.repository, generation)
        self.primary.put(name, seal_keyring(theirs, [escrow], self.owner))
        return generation


@pytest.fixture
def escrowed(machine: Machine, tmp_path: Path) -> Escrowed:
    add_tenant(machine.settings, env=machine.env)
    client = Client(machine.settings, machine.key, env=machine.env)
    client.backup()
    keys = tenant_keys("acme", env=machine.env)
    paths = keys.escrow_shares(2, 2, tmp_path / "shares")
    (tmp_path / "new").write_bytes(b"n" * 32)
    bare = {"KRYONIX_HOME": str(tmp_path / "bare"), "KRYONIX_KEY_FILE": str(tmp_path / "new")}
    shares = [Secret(path.read_bytes()) for path in paths]
    return Escrowed(machine, shares, Owner(client.repository.id, machine.settings.id), bare)


def test_a_keyring_that_a_stranger_wrapped_for_the_shares_does_not_open(
    escrowed: Escrowed,
) -> None:
    before = generations(escrowed.primary, escrowed.owner)
    forged = escrowed.forge()

    with pytest.raises(KeyRefused, match="shares do not open"):
        escrowed.lost().recover(escrowed.shares)

    assert generations(escrowed.primary, escrowed.owner) == [*before, forged], "none was removed"
    escrowed.primary.delete(keyring_name(escrowed.owner.repository, forged))
    assert escrowed.lost().recover(escrowed.shares)["recipients"] == ["key-file", "escrow-shares"]


def test_a_keyring_that_a_stranger_wrapped_for_an_rsa_key_opens_nothing_that_is_there(
    escrowed: Escrowed,
) -> None:
    private = rsa.generate_private_key(65537, 3072)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    tenant_keys("acme", env=escrowed.machine.env).escrow_rsa(public)
    before = generations(escrowed.primary, escrowed.owner)
    forged = escrowed.forge()

    with pytest.raises(KeyRefused, match="none of the tenant's masters wrote it") as caught:
        escrowed.lost().recover(private_pem=Secret(pem))

    assert generations(escrowed.primary, escrowed.owner) == [*before, forged], "none was removed"
    assert "recover again" in caught.value.hint


def test_a_recovery_is_recorded_before_it_and_after(escrowed: Escrowed) -> None:
    escrowed.lost().recover(escrowed.shares)

    env = {**escrowed.machine.env, "KRYONIX_KEY_FILE": escrowed.bare["KRYONIX_KEY_FILE"]}
    records = tenant_keys("acme", env=env)._repository().audit()
    told = [records.single(each).record().deed for each in sorted(records.names().singles)[-2:]]
    assert [(each.action, each.object, each.result) for each in told] == [
        ("keys recover", "escrow-shares", "begun"),
        ("keys recover", "escrow-shares", "ok"),
    ]


def test_keys_that_were_set_back_are_not_recovered(escrowed: Escrowed) -> None:
    older = newest_keyring(escrowed.primary, escrowed.owner)
    assert older is not None
    tenant_keys("acme", env=escrowed.machine.env).set_state("1", KeyState.COMPROMISED)
    newer = newest_keyring(escrowed.primary, escrowed.owner)
    assert newer is not None
    escrowed.primary.delete(newer[0])
    escrowed.primary.put(*older)
    env = {**escrowed.machine.env, "KRYONIX_KEY_FILE": escrowed.bare["KRYONIX_KEY_FILE"]}

    with pytest.raises(RolledBack) as caught:
        lost_keys("acme", None, env=env).recover(escrowed.shares)
    assert "empty KRYONIX_HOME" in caught.value.hint


@pytest.mark.parametrize("damaged", ["audit/", "snapshots/"])
def test_a_part_that_is_damaged_stands_in_no_recoverys_way(
    escrowed: Escrowed, damaged: str
) -> None:
    for info in list(escrowed.primary.list(damaged)):
        escrowed.primary.replace(info.name, b"rubbish")

    check_own(tenant_keys("acme", env=escrowed.machine.env)._repository())


def test_while_the_key_of_everything_is_suspended_the_chain_vouches(escrowed: Escrowed) -> None:
    keys = tenant_keys("acme", env=escrowed.machine.env)
    keys.set_state("1", KeyState.SUSPENDED)

    check_own(keys._repository())
