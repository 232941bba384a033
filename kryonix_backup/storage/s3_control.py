"""
The calls of S3 that move few bytes, or whose bytes go in parts; made by boto3.

boto3 costs half a second to import, so it is imported by the first call: a backup into a bucket
that exists makes none.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kryonix_backup.errors import KryonixError, StoreUnavailable
from kryonix_backup.model import MIB, Blob
from kryonix_backup.storage.credentials import S3Credentials
from kryonix_backup.storage.location import Bucket
from kryonix_backup.storage.s3_failures import Refusal

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

CONNECT_SECONDS = 10.0
PATIENT = 5
"""Attempts at each request of what is no part of a store, which tries again by itself."""
_MACHINES = "/etc/ssl/certs/ca-certificates.crt"
# What is not said would be the environment's; the types do not know all of it.
_UNASKED: dict[str, Any] = {
    "ignore_configured_endpoint_urls": True,
    "use_fips_endpoint": False,
    "use_dualstack_endpoint": False,
}
_MAKING = threading.Lock()
_AMAZONS = (".amazonaws.com", ".amazonaws.com.cn")
_PART_BYTES = 16 * MIB
_PARTS_AT_ONCE = 4
_AMAZONS_FIRST_REGION = "us-east-1"


class S3Control:
    """A bucket's control calls; every method may be called from several threads at once."""

    def __init__(self, bucket: Bucket, credentials: S3Credentials, attempts: int = 1) -> None:
        self._bucket = bucket
        self._credentials = credentials
        self._attempts = attempts
        self._lock = threading.Lock()
        self._made: S3Client | None = None

    def make_bucket(self) -> None:
        """Make the bucket; one that is ours already is left as it is."""
        extra = location(self._bucket.region)
        with self._translated("the bucket"):
            owned = self._client.exceptions.BucketAlreadyOwnedByYou
            with suppress(owned):
                self._client.create_bucket(Bucket=self._bucket.name, **extra)

    def put_parts(self, key: str, body: Blob, what: str) -> None:
        """
        Write a new object in parts that travel together; raises ObjectExists.

        The object appears by the last call, which is refused where the name exists; on any failure
        the parts are discarded.
        """
        with self._translated(what):
            upload = self._client.create_multipart_upload(
                Bucket=self._bucket.name, Key=key, ChecksumAlgorithm="CRC32"
            )["UploadId"]
            try:
                parts = self._send_parts(key, upload, body)
                self._client.complete_multipart_upload(
                    Bucket=self._bucket.name,
                    Key=key,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                )
            except BaseException:
                self._discard(key, upload)
                raise

    def _send_parts(self, key: str, upload: str, body: Blob) -> list[CompletedPartTypeDef]:
        view = memoryview(body).cast("B")

        def send(number: int) -> CompletedPartTypeDef:
            start = (number - 1) * _PART_BYTES
            answer = self._client.upload_part(
                Bucket=self._bucket.name,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                Body=bytes(view[start : start + _PART_BYTES]),
                ChecksumAlgorithm="CRC32",
            )
            part: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
            if "ChecksumCRC32" in answer:
                part["ChecksumCRC32"] = answer["ChecksumCRC32"]
            return part

        count = max(1, -(-len(view) // _PART_BYTES))
        with ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="s3-part") as pool:
            return list(pool.map(send, range(1, count + 1)))

    def _discard(self, key: str, upload: str) -> None:
        # What cannot be discarded is invisible; the failure that led here says more.
        with suppress(KryonixError), self._translated("the parts"):
            self._client.abort_multipart_upload(Bucket=self._bucket.name, Key=key, UploadId=upload)

    @property
    def _client(self) -> S3Client:
        with self._lock:
            if self._made is None:
                self._made = self._connect()
            return self._made

    def _connect(self) -> S3Client:
        client: S3Client = connection("s3", self._bucket, self._credentials, self._attempts)
        return client

    def _translated(self, what: str) -> AbstractContextManager[None]:
        return translated(self._bucket, what)


def location(region: str) -> dict[str, Any]:
    """What the making of a bucket has to say of its region."""
    if region == _AMAZONS_FIRST_REGION:  # which refuses to be named
        return {}
    return {"CreateBucketConfiguration": {"LocationConstraint": region}}


def connection(service: str, bucket: Bucket, keys: S3Credentials | None, attempts: int = 1) -> Any:
    """
    A client of boto3 for ``s3`` or ``iam``, which signs nothing without keys.

    A request that failed in passing is made up to ``attempts`` times, with a random wait between:
    what is made or removed by it may then be there, or gone, already. IAM has an address of its
    own at Amazon alone.
    """
    from botocore import UNSIGNED
    from botocore.config import Config

    pair: dict[str, Any] = {}
    if keys is not None:
        pair["aws_access_key_id"] = keys.access_key_id
        pair["aws_secret_access_key"] = keys.secret_access_key.reveal().decode()
        if keys.session_token is not None:
            pair["aws_session_token"] = keys.session_token.reveal().decode()
    config = Config(
        signature_version=None if keys is not None else UNSIGNED,
        connect_timeout=min(CONNECT_SECONDS, bucket.timeout),
        read_timeout=bucket.timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=4 * _PARTS_AT_ONCE,
        s3={"addressing_style": "path" if bucket.path_style else "virtual"},
        proxies=bucket.network.proxies(),
        **_UNASKED,
    )
    amazon = (urlsplit(bucket.server).hostname or "").endswith(_AMAZONS)
    with _MAKING:  # which is not for several threads at once
        return _session().client(
            service,
            endpoint_url=None if amazon and service == "iam" else bucket.server,
            region_name=bucket.region,
            verify=bucket.network.ca_bundle or _authorities(),
            config=config,
            **pair,
        )


def _authorities() -> str | bool:
    """The machine's, as obstore has them, rather than those that come with boto3."""
    return _MACHINES if os.path.exists(_MACHINES) else True


@cache
def _session() -> Any:
    """One for all clients: each would read the descriptions of the services anew."""
    import boto3

    # At DEBUG it logs every answer in full, and the pair of an account that was just made.
    logging.getLogger("botocore").setLevel(logging.INFO)
    return boto3.session.Session()


@contextmanager
def translated(bucket: Bucket, what: str) -> Iterator[None]:
    """Turn botocore's errors into ours."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        # A completion may fail after its 200 was sent.
        refusal = Refusal(0 if status == 200 else status, code)
        raise refusal.error(bucket.way, what) from error
    except (BotoCoreError, HTTPClientError) as error:
        refusal = Refusal.in_text(f"{error} {error.kwargs.get('error', '')}")
        if refusal.why:
            raise refusal.error(bucket.way, what) from error
        raise StoreUnavailable(f"{bucket.way}: {what}: {type(error).__name__}") from error
