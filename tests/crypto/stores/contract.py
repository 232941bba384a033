"""
What every key store promises; a store's test class inherits it and makes a ``place``.

A place is one store with many masters, so that each test has a tenant of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kryonix_backup.crypto.keystore import KeyStore, ManagedKeyStore
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.errors import KeyRefused
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RootKey, Secret
from tests.architecture.tree import ROOT

KEY = bytes(range(32))
CONTEXT = b'{"tenant":"acme"}'

_numbers = itertools.count(1)
# Each store's class runs it by itself, and keeps no example for another's.
_few = settings(
    max_examples=15,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


@dataclass(frozen=True)
class Place:
    """A store: a root key, the variables that name it, and the secrets that must not show."""

    root: RootKey
    env: Mapping[str, str]
    secrets: tuple[str, ...]

    def open(self, tenant: TenantId) -> KeyStore:
        return open_key_store(self.root, tenant)


SENSELESS: tuple[Any, ...] = (None, 7, "", [], {"a": 1})


def new_tenant() -> TenantId:
    """A tenant that no other test has."""
    return TenantId(f"tenant-{os.getpid()}-{next(_numbers)}")


def changed(recipient: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The recipient with one bit of one byte changed, and with each field gone or senseless."""
    for field, value in recipient.items():
        if isinstance(value, str):
            for at in range(len(value)):
                flipped = chr(ord(value[at]) ^ 1)
                yield {**recipient, field: value[:at] + flipped + value[at + 1 :]}
        else:
            yield {**recipient, field: value + 1}
        yield {name: kept for name, kept in recipient.items() if name != field}
        for senseless in SENSELESS:
            yield {**recipient, field: senseless}


class KeyStoreContract:
    """The promises of the port `KeyStore`."""

    @pytest.fixture
    def tenant(self) -> TenantId:
        return new_tenant()

    @pytest.fixture
    def store(self, place: Place, tenant: TenantId) -> KeyStore:
        return place.open(tenant)

    @pytest.fixture
    def stranger(self, place: Place) -> KeyStore:
        """Another tenant's store, in the same place."""
        raise NotImplementedError

    @_few
    @given(key=st.binary(min_size=1, max_size=64), context=st.binary(max_size=300))
    def test_a_wrapped_key_opens_with_its_context_alone(
        self, store: KeyStore, key: bytes, context: bytes
    ) -> None:
        recipient = json.loads(json.dumps(store.wrap(Secret(key), context)))

        assert recipient["store"] == store.kind
        assert store.unwrap(recipient, context).reveal() == key
        for other in (context + b"\0", context[:-1] if context else b"x", CONTEXT):
            with pytest.raises(KeyRefused):
                store.unwrap(recipient, other)

    def test_the_same_key_is_never_wrapped_into_the_same_bytes(self, store: KeyStore) -> None:
        wrapped = {store.wrap(Secret(KEY), CONTEXT)["wrapped"] for _ in range(10)}

        assert len(wrapped) == 10

    def test_every_changed_byte_is_refused(self, store: KeyStore) -> None:
        recipient = store.wrap(Secret(KEY), CONTEXT)

        for each in changed(recipient):
            with pytest.raises(KeyRefused):
                store.unwrap(each, CONTEXT)
        assert store.unwrap(recipient, CONTEXT).reveal() == KEY

    def test_another_tenants_store_refuses(self, store: KeyStore, stranger: KeyStore) -> None:
        recipient = store.wrap(Secret(KEY), CONTEXT)

        with pytest.raises(KeyRefused):
            stranger.unwrap(recipient, CONTEXT)
        theirs = stranger.wrap(Secret(KEY), CONTEXT)
        with pytest.raises(KeyRefused):
            store.unwrap(theirs, CONTEXT)
        if "key" in recipient:  # as if it were ours
            with pytest.raises(KeyRefused):
                store.unwrap({**theirs, "key": recipient["key"]}, CONTEXT)

    def test_eight_threads_share_a_store(self, store: KeyStore) -> None:
        def work(number: int) -> bytes:
            key = hashlib.sha256(b"%d" % number).digest()
            return store.unwrap(store.wrap(Secret(key), CONTEXT), CONTEXT).reveal()

        with ThreadPoolExecutor(8) as pool:
            opened = list(pool.map(work, range(40)))

        assert opened == [hashlib.sha256(b"%d" % number).digest() for number in range(40)]

    def test_other_processes_open_it_started_and_forked(
        self, place: Place, store: KeyStore, tenant: TenantId
    ) -> None:
        recipient = store.wrap(Secret(KEY), CONTEXT)
        words = [sys.executable, "-m", "tests.crypto.stores.child", tenant, CONTEXT.decode()]
        children = [
            subprocess.Popen(
                words,
                cwd=ROOT,
                env={**os.environ, **place.env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        said = [child.communicate(json.dumps(recipient), timeout=60) for child in children]

        assert [child.returncode for child in children] == [0, 0], said
        assert {line for out, _ in said for line in out.split()} == {
            hashlib.sha256(KEY).hexdigest()
        }
        assert store.unwrap(recipient, CONTEXT).reveal() == KEY

    def test_it_neither_prints_nor_pickles(
        self, place: Place, store: KeyStore, stranger: KeyStore
    ) -> None:
        recipient = store.wrap(Secret(KEY), CONTEXT)
        with pytest.raises(KeyRefused) as refused:
            stranger.unwrap(recipient, CONTEXT)
        shown = f"{store!r} {vars(store)} {place.root!r} {refused.value!r} {refused.value.hint}"

        assert place.secrets
        for secret in place.secrets:
            assert secret not in shown
        with pytest.raises(TypeError):
            pickle.dumps(store)


class ManagedKeyStoreContract(KeyStoreContract):
    """The promises of `ManagedKeyStore`, whose master has versions."""

    @pytest.fixture
    def bare(self, place: Place, tenant: TenantId) -> ManagedKeyStore:
        """A store whose master is not made yet."""
        store = place.open(tenant)
        assert isinstance(store, ManagedKeyStore)
        return store

    @pytest.fixture
    def store(self, bare: ManagedKeyStore) -> ManagedKeyStore:
        bare.renew()
        return bare

    @pytest.fixture
    def stranger(self, place: Place) -> ManagedKeyStore:
        store = place.open(new_tenant())
        assert isinstance(store, ManagedKeyStore)
        store.renew()
        return store

    def test_without_a_version_it_says_how_to_make_one(self, bare: ManagedKeyStore) -> None:
        assert bare.versions() == []
        with pytest.raises(KeyRefused) as refused:
            bare.wrap(Secret(KEY), CONTEXT)

        assert bare.address in str(refused.value)
        assert "kryonix" in refused.value.hint

    def test_the_newest_version_wraps_and_all_open(
        self, bare: ManagedKeyStore, place: Place, tenant: TenantId
    ) -> None:
        names, recipients = [], []
        for _ in range(3):
            names.append(bare.renew())
            recipients.append(bare.wrap(Secret(KEY), CONTEXT))

        assert len(set(names)) == 3
        assert bare.versions() == names
        assert [each["key"] for each in recipients] == names
        other = place.open(tenant)
        assert all(other.unwrap(each, CONTEXT).reveal() == KEY for each in recipients)

    def test_more_than_nine_versions_are_in_order(self, bare: ManagedKeyStore) -> None:
        names = [bare.renew() for _ in range(11)]

        assert bare.versions() == names
        assert bare.wrap(Secret(KEY), CONTEXT)["key"] == names[-1]

    def test_what_is_retired_opens_nothing(self, bare: ManagedKeyStore) -> None:
        old, middle = bare.renew(), bare.renew()
        recipient = bare.wrap(Secret(KEY), CONTEXT)
        new = bare.renew()
        kept = bare.wrap(Secret(KEY), CONTEXT)

        assert sorted(bare.retire(new)) == sorted([old, middle])
        assert bare.versions() == [new]
        assert bare.retire(new) == []
        assert bare.unwrap(kept, CONTEXT).reveal() == KEY
        with pytest.raises(KeyRefused):
            bare.unwrap(recipient, CONTEXT)

    def test_a_version_that_another_process_made_meanwhile_stays(
        self, bare: ManagedKeyStore
    ) -> None:
        old, mine, theirs = bare.renew(), bare.renew(), bare.renew()
        kept = bare.wrap(Secret(KEY), CONTEXT)

        assert bare.retire(mine) == [old]
        assert bare.versions() == [mine, theirs]
        assert bare.unwrap(kept, CONTEXT).reveal() == KEY

    def test_keeping_what_is_not_there_destroys_nothing(self, store: ManagedKeyStore) -> None:
        before = store.versions()

        with pytest.raises(KeyRefused, match="no key"):
            store.retire(before[0] + "0")
        assert store.versions() == before

    def test_a_destroyed_master_opens_nothing_ever_again(
        self, store: ManagedKeyStore, stranger: ManagedKeyStore, place: Place, tenant: TenantId
    ) -> None:
        old = store.wrap(Secret(KEY), CONTEXT)
        names = [*store.versions(), store.renew()]
        new = store.wrap(Secret(KEY), CONTEXT)
        theirs = stranger.wrap(Secret(KEY), CONTEXT)

        assert sorted(store.destroy()) == sorted(names)
        assert store.destroy() == []
        for each in (store, place.open(tenant)):
            with pytest.raises(KeyRefused):
                each.unwrap(old, CONTEXT)
            with pytest.raises(KeyRefused):
                each.unwrap(new, CONTEXT)
            with pytest.raises(KeyRefused):
                each.wrap(Secret(KEY), CONTEXT)
        store.renew()
        for each_recipient in (old, new):
            with pytest.raises(KeyRefused):
                store.unwrap(each_recipient, CONTEXT)
        assert stranger.unwrap(theirs, CONTEXT).reveal() == KEY

    def test_renewing_from_eight_threads_loses_no_key(self, store: ManagedKeyStore) -> None:
        def work(_: int) -> dict[str, Any]:
            store.renew()
            return store.wrap(Secret(KEY), CONTEXT)

        with ThreadPoolExecutor(8) as pool:
            recipients = list(pool.map(work, range(8)))

        assert len(store.versions()) == 9
        assert all(store.unwrap(each, CONTEXT).reveal() == KEY for each in recipients)
