"""
Objects in an S3 bucket, on Amazon's or any other server that honours ``If-None-Match: *``.

Bytes go through obstore, which costs a fraction of boto3's processor time (docs/adr/0002); each
upload carries a CRC-64/NVME that the server checks. What is downloaded is not checked here: every
object is sealed, and opening it proves more than a checksum can.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from kryonix_backup.errors import (
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreUnsupported,
)
from kryonix_backup.model import Blob
from kryonix_backup.storage.credentials import S3Credentials
from kryonix_backup.storage.location import Bucket
from kryonix_backup.storage.object_name import (
    SCRATCH,
    check_object_name,
    check_prefix,
    is_object_name,
)
from kryonix_backup.storage.s3_control import CONNECT_SECONDS, S3Control
from kryonix_backup.storage.s3_failures import Refusal
from kryonix_backup.storage.store import WHOLE_BYTES, ObjectInfo

if TYPE_CHECKING:
    import obstore.store
    from obstore.store import ClientConfig, S3Config, S3Credential

_NO_PROXY = "http://127.0.0.1:1"


class S3Store:
    """An `ObjectStore` in a bucket, or under a prefix of one."""

    def __init__(self, bucket: Bucket, credentials: S3Credentials) -> None:
        self._bucket = bucket
        self._bytes = _connect(bucket, credentials)
        self._control = S3Control(bucket, credentials)
        self._root = f"{bucket.prefix}/" if bucket.prefix else ""

    @property
    def address(self) -> str:
        """The bucket and its server."""
        return self._bucket.address

    @property
    def parallel(self) -> int:
        """Three: each connection waits for the server most of the time."""
        return 3

    def create(self) -> None:
        """
        Make the bucket where it is missing, and prove that the server refuses to overwrite.

        Raises StoreUnsupported when it does not: concurrent writers would destroy each other's
        objects there.
        """
        if not self._exists():
            self._control.make_bucket()
        probe = f"{self._root}{SCRATCH}/probe-{secrets.token_hex(8)}"
        what = "the probe of conditional writes"
        self._put(probe, b"first", what)
        try:
            self._refuses(lambda: self._put(probe, b"second", what))
            self._refuses(lambda: self._control.put_parts(probe, b"third", what))
        finally:
            self._remove(probe, what)

    def put(self, name: str, body: Blob) -> None:
        """Write a new object; raises ObjectExists."""
        key = self._key(name)
        if memoryview(body).nbytes >= WHOLE_BYTES:
            self._control.put_parts(key, body, f"object {name}")
        else:
            self._put(key, body, f"object {name}")

    def replace(self, name: str, body: Blob) -> None:
        """Write an object whether it is there or not."""
        self._put(self._key(name), body, f"object {name}", overwrite=True)

    def delete(self, name: str) -> None:
        """
        Remove an object for good; one that is not there is no failure.

        A bucket that keeps versions keeps this one too, and object lock refuses.
        """
        import obstore

        with suppress(ObjectMissing), self._translated(f"object {name}"):
            obstore.delete(self._bytes, self._key(name))

    def get(self, name: str) -> bytes:
        """A whole object; raises ObjectMissing."""
        import obstore

        with self._translated(f"object {name}"):
            return obstore.get(self._bytes, self._key(name)).bytes().to_bytes()

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Bytes of an object from ``start`` on; raises ObjectMissing."""
        import obstore

        if length <= 0:
            self.size(name)  # which says where there is no such object
            return b""
        key = self._key(name)
        try:
            return obstore.get_range(self._bytes, key, start=start, length=length).to_bytes()
        except (obstore.exceptions.BaseError, OSError) as error:
            refusal = Refusal.in_text(str(error))
            if refusal.is_past_end:
                return b""
            raise refusal.error(self._bucket.way, f"object {name}") from error

    def size(self, name: str) -> int:
        """An object's size in bytes; raises ObjectMissing."""
        import obstore

        try:
            with self._translated(f"object {name}"):
                return obstore.head(self._bytes, self._key(name))["size"]
        except ObjectMissing:
            # An answer to HEAD has no body to say which of the two is missing.
            self._look_at_bucket()
            raise

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose name starts with ``prefix``."""
        import obstore

        # obstore only asks for whole segments, and servers differ in what else they send.
        folder = self._root + check_prefix(prefix).rpartition("/")[0]
        pages = iter(obstore.list(self._bytes, folder or None, chunk_size=1000))
        while True:
            try:
                page = next(pages, ())
            except (obstore.exceptions.BaseError, OSError) as error:
                refusal = Refusal.in_text(str(error))
                if refusal.is_missing_bucket:
                    return
                raise refusal.error(
                    self._bucket.way, f"the listing of {prefix or 'everything'}"
                ) from error
            if not page:
                return
            for row in page:
                name = row["path"].removeprefix(self._root)
                if name.startswith(prefix) and is_object_name(name):
                    yield ObjectInfo(name, row["size"])

    def _key(self, name: str) -> str:
        return self._root + check_object_name(name)

    def _put(self, key: str, body: Blob, what: str, *, overwrite: bool = False) -> None:
        import obstore

        mode: Literal["create", "overwrite"] = "overwrite" if overwrite else "create"
        with self._translated(what):
            obstore.put(self._bytes, key, body, mode=mode, use_multipart=False)

    def _look_at_bucket(self) -> None:
        """Ask for a page of the bucket's listing; raises ObjectMissing where there is no bucket."""
        import obstore

        with self._translated("the bucket"):
            next(iter(obstore.list(self._bytes, self._root + SCRATCH, chunk_size=1)), None)

    def _exists(self) -> bool:
        try:
            self._look_at_bucket()
        except ObjectMissing:
            return False
        return True

    def _refuses(self, attempt: Callable[[], None]) -> None:
        try:
            attempt()
        except ObjectExists:
            return
        raise StoreUnsupported(
            f"{self.address}: the server overwrites objects that it was asked to create"
        )

    def _remove(self, key: str, what: str) -> None:
        import obstore

        # Who may not delete leaves a few bytes under a name that is never listed.
        with suppress(StoreDenied), self._translated(what):
            obstore.delete(self._bytes, key)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn obstore's errors into ours; one for a missing object is Python's own."""
        import obstore

        try:
            yield
        except (obstore.exceptions.BaseError, OSError) as error:
            raise Refusal.in_text(str(error)).error(self._bucket.way, what) from error


def _connect(bucket: Bucket, keys: S3Credentials) -> obstore.store.S3Store:
    from obstore.store import S3Store as Connection

    config: S3Config = {
        "endpoint": bucket.host_url,
        "region": bucket.region,
        "virtual_hosted_style_request": not bucket.path_style,
        # The signature covers the checksum, and the checksum the body.
        "unsigned_payload": True,
        "checksum_algorithm": "crc64nvme",
        "disable_bulk_delete": True,
        # obstore takes out of the environment whatever is not said.
        "aws_endpoint_url_s3": bucket.host_url,
        "conditional_put": "etag",
        "skip_signature": False,
        "s3_express": False,
        "request_payer": False,
    }
    return Connection(
        bucket.name,
        config=config,
        client_options=_options(bucket),
        retry_config={"max_retries": 0},
        credential_provider=_provider(keys),
    )


def _provider(keys: S3Credentials) -> Callable[[], S3Credential]:
    """The keys as obstore asks for them: beside keys in its settings it takes a foreign token."""

    def provide() -> S3Credential:
        token = keys.session_token
        return {
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key.reveal().decode(),
            "token": None if token is None else token.reveal().decode(),
            "expires_at": None,
        }

    return provide


def _options(bucket: Bucket) -> ClientConfig:
    """All that decides on the way and on trust; what is left out would be the environment's."""
    proxy, bundle = bucket.network.proxy, bucket.network.ca_bundle
    options: ClientConfig = {
        "allow_http": bucket.server.startswith("http://"),
        "allow_invalid_certificates": False,
        "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, bucket.timeout)),
        "timeout": timedelta(seconds=bucket.timeout),
        # Directly is to this host alone: the environment's proxy is not asked for, and a redirect
        # to another host, which obstore follows to read, ends at a proxy that is not there.
        "proxy_url": proxy.reveal() if proxy else _NO_PROXY,
        "proxy_excludes": "" if proxy else urlsplit(bucket.host_url).hostname or "",
    }
    if bundle is not None:
        options["root_certificate"] = Path(bundle).read_bytes()
    return options
