"""An older state of A's own bucket is noticed by whoever has seen a newer one."""

from __future__ import annotations

import pytest

from kryonix_backup.crypto.keys import KeyState
from kryonix_backup.errors import KryonixError, RolledBack
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.keys import Keys
from tests.attacks.conftest import Town


def _again(town: Town) -> Client:
    """A client of the machine that has seen what was."""
    return Client(town.a.settings, town.a.root, env=town.a.env)


@pytest.mark.parametrize("what", ["", "snapshots/", "audit/"])
def test_a_bucket_that_was_set_back_is_noticed(town: Town, what: str) -> None:
    town.a.client().snapshots()
    store = town.a.store()
    for name in town.a.objects():
        if name.startswith(what) and name not in town.a.older:
            store.delete(name)

    if what == "snapshots/":  # the chain is whole: it tells which snapshots there were
        assert len(_again(town).snapshots()) == 1
        shown = [str(each) for each in _again(town).audit_records(limit=1000, action="backup")]
        assert any(town.a.second.snapshot.id in each for each in shown)
    else:
        with pytest.raises(RolledBack):
            _again(town).snapshots()


def test_an_older_keyring_does_not_bring_a_suspended_key_back(town: Town) -> None:
    before = {name: body for name, body in town.a.objects().items() if name.startswith("keys/")}
    town.a.client().snapshots()
    keys = Keys(town.a.settings, town.a.root, env=town.a.env)
    keys.set_state("1", KeyState.SUSPENDED)
    with pytest.raises(KryonixError):
        _again(town).snapshots()
    store = town.a.store()
    for name in town.a.objects():
        if name.startswith("keys/") and name not in before:
            store.delete(name)
    town.a.plant(before)

    with pytest.raises(RolledBack, match="keyring 2"):
        _again(town).snapshots()
