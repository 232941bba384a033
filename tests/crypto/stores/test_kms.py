"""
A master in AWS KMS keeps the contract.

The KMS is moto's, a mock, because there is no real one to run: it decrypts with disabled keys and
those that await deletion, so these tests show that we refuse by ourselves.
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
from typing import Any

import pytest

from kryonix_backup.crypto.stores.encoding import from_text, to_text
from kryonix_backup.crypto.stores.kms import MOST_BYTES, KmsStore
from kryonix_backup.crypto.stores.location import KmsLocation
from kryonix_backup.errors import KeyRefused, KeyStoreUnavailable, KeyStoreUnusable
from kryonix_backup.settings import Secret
from kryonix_backup.testing.key_stores import MotoKms
from tests.crypto.stores.contract import (
    CONTEXT,
    KEY,
    ManagedKeyStoreContract,
    Place,
    new_tenant,
)
from tests.services.s3_proxy import Answer, S3Proxy
from tests.services.softhsm import kms

__all__ = ["kms"]

pytestmark = pytest.mark.service

BOUND = {"kryonix": hashlib.sha256(CONTEXT).hexdigest()}


class TestKms(ManagedKeyStoreContract):
    @pytest.fixture
    def place(self, kms: MotoKms) -> Place:
        secret = kms.server.root.secret_access_key
        return Place(kms.root, kms.environment(), (secret, KEY.hex(), repr(KEY)[2:-1]))


def _at(kms: MotoKms, endpoint: str | None = None, alias: str | None = None) -> KmsStore:
    location = KmsLocation(
        alias or f"kryonix-{new_tenant()}", "us-east-1", endpoint or kms.server.endpoint
    )
    return KmsStore(location, kms.settings("kms://"), attempts=2)


def _refusal(code: str, status: int = 400) -> Answer:
    return Answer(status, content=json.dumps({"__type": code, "message": "scripted"}))


@pytest.fixture
def store(kms: MotoKms) -> KmsStore:
    made = _at(kms)
    made.renew()
    return made


def _by_the_mock(store: KmsStore, recipient: dict[str, Any]) -> bytes:
    """What the mock opens, whatever the key's state."""
    answer = store._client.decrypt(
        KeyId=recipient["key"],
        CiphertextBlob=from_text(recipient["wrapped"]),
        EncryptionContext=BOUND,
    )
    return answer["Plaintext"]


def _id(recipient: dict[str, Any]) -> str:
    """The mock takes no ARN where a key is switched on or off."""
    return str(recipient["key"]).rpartition("/")[2]


def test_a_key_of_another_region_is_refused_before_anything_is_asked(store: KmsStore) -> None:
    recipient = store.wrap(Secret(KEY), CONTEXT)
    there = recipient["key"].replace(":us-east-1:", ":eu-west-1:")
    assert there != recipient["key"]

    with pytest.raises(KeyRefused, match="which is not in us-east-1"):
        store.unwrap({**recipient, "key": there}, CONTEXT)


def test_a_key_that_awaits_deletion_is_refused_though_the_mock_opens(store: KmsStore) -> None:
    recipient = store.wrap(Secret(KEY), CONTEXT)
    store.destroy()

    assert _by_the_mock(store, recipient) == KEY
    with pytest.raises(KeyRefused, match="PendingDeletion"):
        store.unwrap(recipient, CONTEXT)


def test_a_disabled_key_is_refused_though_the_mock_opens(store: KmsStore) -> None:
    recipient = store.wrap(Secret(KEY), CONTEXT)
    store._client.disable_key(KeyId=_id(recipient))

    assert _by_the_mock(store, recipient) == KEY
    with pytest.raises(KeyRefused, match="Disabled") as refused:
        store.unwrap(recipient, CONTEXT)
    with pytest.raises(KeyRefused, match="Disabled"):
        store.wrap(Secret(KEY), CONTEXT)
    assert "enable-key" in refused.value.hint
    store._client.enable_key(KeyId=_id(recipient))
    assert store.unwrap(recipient, CONTEXT).reveal() == KEY


def test_deletion_waits_for_the_shortest_time_that_kms_allows(store: KmsStore) -> None:
    (name,) = store.destroy()

    metadata = store._client.describe_key(KeyId=name)["KeyMetadata"]
    waits = metadata["DeletionDate"] - metadata["CreationDate"]
    assert 6 <= waits.days <= 7


def test_a_key_of_whoever_writes_to_the_bucket_is_refused(store: KmsStore) -> None:
    """The credentials may use it and the context fits; only the alias tells whose it is."""
    ours = store.wrap(Secret(KEY), CONTEXT)
    foreign = store._client.create_key()["KeyMetadata"]["Arn"]
    blob = store._client.encrypt(KeyId=foreign, Plaintext=b"e" * 32, EncryptionContext=BOUND)
    theirs = {**ours, "key": foreign, "wrapped": to_text(blob["CiphertextBlob"])}

    with pytest.raises(KeyRefused, match="is not"):
        store.unwrap(theirs, CONTEXT)
    with pytest.raises(KeyRefused):
        store.unwrap({**theirs, "key": ours["key"]}, CONTEXT)


def test_more_than_kms_takes_is_refused_before_it_is_sent(store: KmsStore) -> None:
    most = Secret(bytes(MOST_BYTES))

    assert store.unwrap(store.wrap(most, CONTEXT), CONTEXT).reveal() == most.reveal()
    with pytest.raises(KeyStoreUnusable, match="4096"):
        store.wrap(Secret(bytes(MOST_BYTES + 1)), CONTEXT)


def test_a_throttled_call_is_made_again(kms: MotoKms, store: KmsStore) -> None:
    recipient = store.wrap(Secret(KEY), CONTEXT)
    with S3Proxy(kms.server.endpoint) as proxy:
        by_proxy = _at(kms, proxy.endpoint, store._location.alias)
        proxy.script(_refusal("ThrottlingException"))

        assert by_proxy.unwrap(recipient, CONTEXT).reveal() == KEY


@pytest.mark.parametrize(
    ("code", "status", "times", "kind"),
    [
        ("ThrottlingException", 400, 2, KeyStoreUnavailable),
        ("KMSInternalException", 500, 2, KeyStoreUnavailable),
        ("LimitExceededException", 400, 2, KeyStoreUnusable),
        ("AccessDeniedException", 400, 1, KeyStoreUnusable),
        ("UnrecognizedClientException", 400, 1, KeyStoreUnusable),
        ("NotFoundException", 400, 1, KeyRefused),
        ("KMSInvalidStateException", 400, 1, KeyRefused),
    ],
)
def test_what_a_kms_says_has_a_meaning(
    kms: MotoKms, code: str, status: int, times: int, kind: type[Exception]
) -> None:
    with S3Proxy(kms.server.endpoint) as proxy:
        by_proxy = _at(kms, proxy.endpoint)
        proxy.script(*[_refusal(code, status)] * times)

        with pytest.raises(kind, match=code) as raised:
            by_proxy.versions()
    assert by_proxy.address in str(raised.value)


def test_a_missing_right_to_decrypt_is_no_wrong_key(kms: MotoKms, store: KmsStore) -> None:
    recipient = store.wrap(Secret(KEY), CONTEXT)
    denied = _refusal("AccessDeniedException")
    with S3Proxy(kms.server.endpoint) as proxy:
        by_proxy = _at(kms, proxy.endpoint, store._location.alias)
        proxy.script(None, None, denied, None, denied)  # aliases, state, decrypt; encrypt, decrypt

        with pytest.raises(KeyStoreUnusable, match="AccessDenied") as raised:
            by_proxy.unwrap(recipient, CONTEXT)
    assert "policy" in raised.value.hint


def test_a_kms_that_does_not_answer_is_transient(kms: MotoKms) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        away = _at(kms, f"http://127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(KeyStoreUnavailable) as raised:
            away.versions()
    assert kms.server.root.secret_access_key not in repr(raised.value)


def test_a_key_that_gets_no_alias_is_not_left_to_be_paid_for(kms: MotoKms) -> None:
    with S3Proxy(kms.server.endpoint) as proxy:
        by_proxy = _at(kms, proxy.endpoint)
        before = {row["KeyId"] for row in by_proxy._client.list_keys(Limit=1000)["Keys"]}
        proxy.script(None, None, _refusal("AccessDeniedException"))  # list, create, alias

        with pytest.raises(KeyStoreUnusable, match="CreateAlias"):
            by_proxy.renew()
    keys = {row["KeyId"] for row in by_proxy._client.list_keys(Limit=1000)["Keys"]}
    (orphan,) = keys - before
    state = _at(kms)._client.describe_key(KeyId=orphan)["KeyMetadata"]["KeyState"]
    assert state == "PendingDeletion"


def test_aliases_that_only_begin_alike_are_no_versions(kms: MotoKms, store: KmsStore) -> None:
    longer = _at(kms, alias=store._location.alias + "0")
    longer.renew()
    deeper = _at(kms, alias=store._location.alias + "/v1")
    deeper.renew()

    assert len(store.versions()) == 1
    assert len(longer.versions()) == 1


def test_what_is_wrapped_is_in_no_log_of_a_library(
    kms: MotoKms, store: KmsStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    opened = store.unwrap(store.wrap(Secret(KEY), CONTEXT), CONTEXT)

    assert opened.reveal() == KEY
    assert "urllib3" in {record.name.partition(".")[0] for record in caplog.records}
    for form in (to_text(KEY), KEY.hex(), repr(KEY)[2:-1]):
        assert form not in caplog.text
