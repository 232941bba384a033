"""Whether a key pair opens its own bucket and nothing else: tried, not believed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kryonix_backup.clock import Clock
from kryonix_backup.errors import NotIsolated, ObjectMissing, StoreDenied, StoreUnsupported
from kryonix_backup.settings import Secret
from kryonix_backup.storage.credentials import S3Credentials
from kryonix_backup.storage.object_name import SCRATCH
from kryonix_backup.storage.s3_admin import S3Admin
from kryonix_backup.storage.s3_control import PATIENT, connection, location, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PATIENCE_S = 60.0
"""How long a new key may take until it opens its bucket: Amazon's are known everywhere later."""
_AGAIN_S = 1.0


class Trial:
    """One trial of a new pair; `run` says what was tried."""

    def __init__(
        self,
        admin: S3Admin,
        operator: S3Credentials,
        pair: S3Credentials,
        clock: Clock,
    ) -> None:
        self._admin, self._bucket, self._clock = admin, admin.bucket, clock
        self._operator = self._as(operator)
        self._tenant = self._as(pair)
        wrong = Secret(secrets.token_hex(20))
        self._impostor = self._as(pair._replace(secret_access_key=wrong))
        self._name = f"{SCRATCH}/isolation-{secrets.token_hex(8)}"

    def run(self) -> Iterator[str]:
        """
        Try everything, and say each thing that holds.

        Raises NotIsolated naming the first that does not, and StoreDenied where the pair does not
        open its own bucket either.
        """
        mine = self._bucket.name
        self._opens_own()
        yield "its key reads and writes its bucket"
        self._refuses("a wrong secret opens the bucket", lambda: self._list(self._impostor, mine))
        self._refuses("nobody's request opens the bucket", lambda: self._list(self._nobody, mine))
        yield "neither a wrong secret nor no key opens it"
        yield from self._elsewhere()
        yield from self._rights()
        yield self._everyone_else()

    def _opens_own(self) -> None:
        """Raise StoreDenied where the pair does not open its bucket in time."""
        until = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                return self._use()
            except StoreDenied:
                if self._clock.monotonic() >= until:
                    raise
                self._clock.sleep(_AGAIN_S)

    def _use(self) -> None:
        where: Any = {"Bucket": self._bucket.name, "Key": self._name}
        with translated(self._bucket, "an object of the trial"):
            self._tenant.put_object(**where, Body=b"kryonix")
            self._tenant.get_object(**where)["Body"].close()
            self._tenant.list_objects_v2(Bucket=self._bucket.name, MaxKeys=1)
            self._tenant.delete_object(**where)

    def _elsewhere(self) -> Iterator[str]:
        """Another bucket, made for this: no other tenant's is touched."""
        name = f"kryonix-trial-{secrets.token_hex(8)}"
        with self._other_bucket(name):
            where: Any = {"Bucket": name, "Key": self._name}
            tenant = self._tenant
            self._refuses("its key lists another bucket", lambda: self._list(tenant, name))
            self._refuses("its key reads another bucket", lambda: tenant.get_object(**where))
            self._refuses(
                "its key writes another bucket", lambda: tenant.put_object(**where, Body=b"x")
            )
            self._refuses(
                "its key deletes in another bucket", lambda: tenant.delete_object(**where)
            )
            if name in self._seen():
                raise self._open("its key sees the names of other buckets")
        yield "its key can do nothing in another bucket, and does not see one"

    def _seen(self) -> list[str]:
        """The buckets that the pair sees: none, or some of servers that show what one may use."""
        try:
            with translated(self._bucket, "the list of buckets"):
                return [row["Name"] for row in self._tenant.list_buckets()["Buckets"]]
        except (StoreDenied, StoreUnsupported):
            return []

    def _rights(self) -> Iterator[str]:
        mine, tenant, policy = self._bucket.name, self._tenant, self._admin.guard()
        self._refuses("its key reads the policy", lambda: tenant.get_bucket_policy(Bucket=mine))
        self._refuses(
            "its key writes the policy",
            lambda: tenant.put_bucket_policy(Bucket=mine, Policy=policy),
        )
        yield "its key can neither read nor change the policy"

    def _everyone_else(self) -> str:
        try:
            with translated(self._bucket, "the bucket"):
                self._list(self._operator, self._bucket.name)
        except StoreDenied:
            return "the operator's own key is refused its objects"
        return "the server lets the operator's key in, whatever the policy says"

    def _refuses(self, what: str, attempt: Callable[[], Any]) -> None:
        try:
            with translated(self._bucket, what):
                attempt()
        except (StoreDenied, StoreUnsupported):
            return
        raise self._open(what)

    def _open(self, what: str) -> NotIsolated:
        return NotIsolated(f"{self._bucket.address} is not one tenant's alone: {what}")

    @contextmanager
    def _other_bucket(self, name: str) -> Iterator[None]:
        other = replace(self._bucket, name=name)
        ours = self._operator.exceptions.BucketAlreadyOwnedByYou
        with translated(other, "the bucket of the trial"), suppress(ours):
            self._operator.create_bucket(Bucket=name, **location(self._bucket.region))
        try:
            yield
        finally:
            with suppress(ObjectMissing), translated(other, "the bucket of the trial"):
                self._operator.delete_bucket(Bucket=name)

    def _list(self, client: S3Client, bucket: str) -> None:
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)

    @property
    def _nobody(self) -> S3Client:
        return self._as(None)

    def _as(self, pair: S3Credentials | None) -> S3Client:
        client: S3Client = connection("s3", self._bucket, pair, PATIENT)
        return client
