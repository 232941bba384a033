"""
The calls of S3 that move few bytes, or whose bytes go in parts; made by boto3.

boto3 costs half a second to import, so it is imported by the first call: a backup into a bucket
that exists makes none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from kryonix_backup.errors import KryonixError, StoreUnavailable
from kryonix_backup.model import MIB, Blob
from kryonix_backup.settings import Secret
from kryonix_backup.storage.location import Bucket
from kryonix_backup.storage.s3_failures import Refusal

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

CONNECT_SECONDS = 10.0
_PART_BYTES = 16 * MIB
_PARTS_AT_ONCE = 4
_AMAZONS_FIRST_REGION = "us-east-1"


class S3Credentials(NamedTuple):
    """A key pair, and the token that comes with a temporary one."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None


class S3Control:
    """A bucket's control calls; every method may be called from several threads at once."""

    def __init__(self, bucket: Bucket, credentials: S3Credentials, ca_bundle: str | None) -> None:
        self._bucket = bucket
        self._credentials = credentials
        self._ca_bundle = ca_bundle
        self._lock = threading.Lock()
        self._made: S3Client | None = None

    def make_bucket(self) -> None:
        """Make the bucket; one that is ours already is left as it is."""
        extra: dict[str, Any] = {}
        if self._bucket.region != _AMAZONS_FIRST_REGION:  # which refuses to be named
            extra["CreateBucketConfiguration"] = {"LocationConstraint": self._bucket.region}
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
        import boto3
        from botocore.config import Config

        keys, bucket = self._credentials, self._bucket
        token = keys.session_token
        return boto3.session.Session().client(
            "s3",
            endpoint_url=bucket.endpoint,
            region_name=bucket.region,
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key.reveal().decode(),
            aws_session_token=token.reveal().decode() if token else None,
            verify=self._ca_bundle,
            config=Config(
                connect_timeout=min(CONNECT_SECONDS, bucket.timeout),
                read_timeout=bucket.timeout,
                retries={"total_max_attempts": 1},
                max_pool_connections=4 * _PARTS_AT_ONCE,
                s3={"addressing_style": "path" if bucket.path_style else "virtual"},
            ),
        )

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn botocore's errors into ours."""
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            # A completion may fail after its 200 was sent.
            refusal = Refusal(0 if status == 200 else status, code)
            raise refusal.error(self._bucket.address, what) from error
        except (BotoCoreError, HTTPClientError) as error:
            raise StoreUnavailable(
                f"{self._bucket.address}: {what}: {type(error).__name__}"
            ) from error
