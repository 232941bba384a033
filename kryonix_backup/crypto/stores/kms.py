"""
Master keys in AWS KMS.

Each version is a KMS key of its own, found by its alias ``alias/{alias}/v{number}``: creating an
alias is what makes a version, and only one caller can. A key wraps by KMS' own Encrypt, bound to
the SHA-256 of the context. Whether a key may be used is decided here by its state, and whether it
is ours by its alias, whatever the endpoint lets through.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from kryonix_backup.crypto.stores.encoding import from_text, to_text
from kryonix_backup.crypto.stores.location import KmsLocation
from kryonix_backup.errors import KeyRefused, KeyStoreUnavailable, KeyStoreUnusable, KryonixError
from kryonix_backup.network import Network
from kryonix_backup.settings import KeyStoreSettings, Secret

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

MOST_BYTES = 4096  # of one Encrypt
SHORTEST_WINDOW_DAYS = 7
_ARN = re.compile(r"arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+", re.ASCII)
# What is not said would be the environment's; the types do not know all of it.
_UNASKED: dict[str, Any] = {
    "ignore_configured_endpoint_urls": True,
    "use_fips_endpoint": False,
    "use_dualstack_endpoint": False,
}
_RACES = 20
_TIMEOUT_SECONDS = 20.0
_PASSING_STATES = {"Creating", "Updating", "Unavailable"}
_GONE_STATES = {"PendingDeletion", "PendingReplicaDeletion"}

# At DEBUG it logs every request and answer in full, with the keys that are wrapped and opened.
logging.getLogger("botocore").setLevel(logging.INFO)

_REFUSED = {
    "NotFoundException", "DisabledException", "KMSInvalidStateException",
    "InvalidCiphertextException", "IncorrectKeyException", "ValidationException",
}  # fmt: skip
_DENIED = {
    "AccessDeniedException", "AccessDenied", "UnrecognizedClientException",
    "InvalidSignatureException", "SignatureDoesNotMatch", "InvalidClientTokenId",
    "IncompleteSignature", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
    "ExpiredTokenException", "OptInRequired",
}  # fmt: skip
_PASSING = {
    "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded",
    "KeyUnavailableException", "DependencyTimeoutException", "KMSInternalException",
    "InternalFailure", "ServiceUnavailable", "RequestTimeout", "RequestExpired",
}  # fmt: skip
_DISTRUST_HINT = (
    "Name your authority's certificates with KRYONIX_KMS_CA_BUNDLE or AWS_CA_BUNDLE. Where they are"
    " named already, somebody else answers at that address."
)
_DENIED_HINT = (
    "Check KRYONIX_KMS_ACCESS_KEY_ID and its secret, and that its policy allows what"
    ' docs/operations.md lists under "Keys in an HSM or KMS".'
)


class KmsStore:
    """A `ManagedKeyStore` in AWS KMS; see the module."""

    kind = "kms"

    def __init__(
        self, location: KmsLocation, settings: KeyStoreSettings, attempts: int = 5
    ) -> None:
        self._location = location
        self._settings = settings
        self._attempts = attempts
        self._lock = threading.Lock()
        self._made: tuple[int, KMSClient] | None = None
        self._alias = re.compile(rf"alias/{re.escape(location.alias)}/v([1-9][0-9]{{0,8}})")

    @property
    def address(self) -> str:
        """Which alias, and where."""
        return self._location.address

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        if len(key.reveal()) > MOST_BYTES:
            raise KeyStoreUnusable(f"{self.address} wraps at most {MOST_BYTES} bytes")
        versions = self._versions()
        if not versions:
            raise KeyRefused(
                f"there is no key {self.address}",
                "It is made by 'kryonix tenant add', or for a tenant with another root key by"
                " 'kryonix keys ID move'; one that was destroyed does not come back.",
            )
        name, state = versions[max(versions)]
        self._require_enabled(name, state)
        with self._translated():
            answer = self._client.encrypt(
                KeyId=name, Plaintext=key.reveal(), EncryptionContext=_bound(context)
            )
        return {"store": self.kind, "key": name, "wrapped": to_text(answer["CiphertextBlob"])}

    def unwrap(self, recipient: Mapping[str, Any], context: bytes) -> Secret:
        try:
            name, wrapped = recipient["key"], from_text(recipient["wrapped"])
            valid = recipient["store"] == self.kind and isinstance(name, str)
        except (KeyError, TypeError, ValueError) as error:
            raise KeyRefused("a wrapped key has the wrong form") from error
        if not valid or not wrapped or not _ARN.fullmatch(name):
            raise KeyRefused("a wrapped key has the wrong form")
        if name.split(":")[3] != self._location.region:  # nor is anything asked of another one's
            raise KeyRefused(f"a key is wrapped by {name}, which is not in {self._location.region}")
        with self._translated():
            ours = any(self._number(alias) for alias in self._aliases(name))
            if not ours:  # or whoever writes to the bucket could wrap with a key of theirs
                raise KeyRefused(f"a key is wrapped by {name}, which is not {self.address}")
            described, state = self._described(name)
            self._require_enabled(described, state)
            opened, by = self._decrypt(name, wrapped, context)
        if not described == by == name:
            raise KeyRefused(f"a key is wrapped by {by}, not by {name} as it says")
        return opened

    def _decrypt(self, name: str, wrapped: bytes, context: bytes) -> tuple[Secret, str]:
        """What the key opens, and the name of the key that did."""
        bound = _bound(context)
        try:
            answer = self._client.decrypt(
                KeyId=name, CiphertextBlob=wrapped, EncryptionContext=bound
            )
        except ClientError as error:
            if _code(error) not in _DENIED:
                raise
            # The same word stands for what another key wrapped, and for a missing permission: who
            # may open what was wrapped just now has the permission.
            probe = self._client.encrypt(KeyId=name, Plaintext=b"probe", EncryptionContext=bound)
            blob = probe["CiphertextBlob"]
            self._client.decrypt(KeyId=name, CiphertextBlob=blob, EncryptionContext=bound)
            raise KeyRefused(f"key {name} does not open this repository's keys") from error
        return Secret(answer["Plaintext"]), answer["KeyId"]

    def renew(self) -> str:
        with self._translated():
            number = 1 + max((self._number(alias) for alias in self._aliases()), default=0)
            made = self._client.create_key(
                Description=f"Master key of kryonix-backup, {self._location.alias}",
                KeyUsage="ENCRYPT_DECRYPT",
                KeySpec="SYMMETRIC_DEFAULT",
            )["KeyMetadata"]["Arn"]
            try:
                self._name(made, number)
            except BaseException:
                # A key without an alias wraps nothing, but is paid for.
                with suppress(ClientError, BotoCoreError, HTTPClientError):
                    self._schedule_deletion(made)
                raise
        return made

    def versions(self) -> list[str]:
        return [name for _, (name, _) in sorted(self._versions().items())]

    def retire(self, keep: str) -> list[str]:
        names = self.versions()
        if keep not in names:
            raise KeyRefused(
                f"there is no key {keep!r} among the versions of {self.address}",
                "Name one of the versions; nothing was destroyed.",
            )
        return self._destroy(names[: names.index(keep)])

    def destroy(self) -> list[str]:
        return self._destroy(self.versions())

    def _destroy(self, names: list[str]) -> list[str]:
        with self._translated():
            for name in names:
                self._schedule_deletion(name)
        return names

    def _schedule_deletion(self, name: str) -> None:
        key = name.rpartition("/")[2]
        self._client.schedule_key_deletion(KeyId=key, PendingWindowInDays=SHORTEST_WINDOW_DAYS)

    def _name(self, key: str, number: int) -> None:
        """Give the key the first free alias from ``number`` on."""
        for candidate in range(number, number + _RACES):
            try:
                alias = f"alias/{self._location.alias}/v{candidate}"
                self._client.create_alias(AliasName=alias, TargetKeyId=key)
            except self._client.exceptions.AlreadyExistsException:
                continue
            return
        raise KeyStoreUnavailable(f"{self.address}: others make versions at the same time")

    def _versions(self) -> dict[int, tuple[str, str]]:
        """Name and state of every version that is not destroyed, by its number."""
        with self._translated():
            found = {self._number(alias): key for alias, key in self._aliases().items()}
            states = {number: self._described(key) for number, key in found.items() if number}
        return {number: row for number, row in states.items() if row[1] not in _GONE_STATES}

    def _aliases(self, key: str | None = None) -> dict[str, str]:
        """Every alias with its key, or only those of one key."""
        lister = self._client.get_paginator("list_aliases")
        pages = lister.paginate(KeyId=key) if key else lister.paginate()
        rows = [row for page in pages for row in page["Aliases"]]
        return {row["AliasName"]: row["TargetKeyId"] for row in rows if "TargetKeyId" in row}

    def _number(self, alias: str) -> int:
        found = self._alias.fullmatch(alias)
        return int(found[1]) if found else 0

    def _described(self, key: str) -> tuple[str, str]:
        metadata = self._client.describe_key(KeyId=key)["KeyMetadata"]
        return metadata["Arn"], metadata.get("KeyState", "Unavailable")

    def _require_enabled(self, name: str, state: str) -> None:
        if state in _PASSING_STATES:
            raise KeyStoreUnavailable(f"key {name} of {self.address} is {state}")
        if state != "Enabled":
            raise KeyRefused(
                f"key {name} of {self.address} is {state}",
                "If that is not meant: 'aws kms cancel-key-deletion', then 'aws kms enable-key'.",
            )

    @property
    def _client(self) -> KMSClient:
        with self._lock:  # a child that was forked must not share its parent's connections
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), self._connect())
            return self._made[1]

    def _connect(self) -> KMSClient:
        settings = self._settings
        secret, token = settings.secret_access_key, settings.session_token
        network = settings.network or Network()
        return boto3.session.Session().client(
            "kms",
            endpoint_url=self._location.endpoint,
            region_name=self._location.region,
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=secret.reveal().decode() if secret else None,
            aws_session_token=token.reveal().decode() if token else None,
            verify=network.ca_bundle,
            config=Config(
                # None leaves it to the environment, where there is but one client to read it.
                proxies=network.proxies() or None,
                **_UNASKED,
                connect_timeout=_TIMEOUT_SECONDS / 2,
                read_timeout=_TIMEOUT_SECONDS,
                retries={"mode": "standard", "total_max_attempts": self._attempts},
            ),
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._error(error) from error
        except (BotoCoreError, HTTPClientError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise KeyStoreUnusable(
                    f"{self.address}: the server's certificate is not believed", _DISTRUST_HINT
                ) from error
            raise KeyStoreUnavailable(f"{self.address}: {type(error).__name__}") from error

    def _error(self, error: ClientError) -> KryonixError:
        code = _code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = f"{self.address}: {error.operation_name}: the server says {code or status}"
        if code in _PASSING or status >= 500 or status == 429:
            return KeyStoreUnavailable(said)
        if code in _DENIED or status in (401, 403):
            return KeyStoreUnusable(said, _DENIED_HINT)
        if code in _REFUSED:
            return KeyRefused(said, "Give the key store that the tenant's keys were wrapped with.")
        return KeyStoreUnusable(said)


def _bound(context: bytes) -> dict[str, str]:
    return {"kryonix": hashlib.sha256(context).hexdigest()}


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")
