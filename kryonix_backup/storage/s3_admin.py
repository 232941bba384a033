"""
What an operator's credentials are for: a bucket that one user alone may enter, and that user.

Buckets and their policies are S3's calls, users and keys IAM's, which other servers than Amazon's
answer at the same address. The policy of the user allows the bucket's objects and nothing else; the
policy of the bucket denies its objects to everyone but the user, the operator included.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, suppress
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kryonix_backup.errors import ConfigError, ObjectMissing, StoreError
from kryonix_backup.model import TenantId
from kryonix_backup.settings import Secret
from kryonix_backup.storage.credentials import S3Credentials
from kryonix_backup.storage.location import Bucket
from kryonix_backup.storage.s3_control import PATIENT, S3Control, connection, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OBJECTS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
_LISTING = ("s3:ListBucket", "s3:GetBucketLocation")
_GUARD = "KryonixTenantOnly"
_POLICY = "kryonix-own-bucket"


class BucketState(StrEnum):
    """Whether the tenant's bucket is there, and whether its policy is."""

    MISSING = "missing"
    OPEN = "open"
    CLOSED = "closed"


def user_of(tenant: TenantId, bucket: Bucket) -> str:
    """The name of the tenant's user for a bucket: no two tenants and buckets share one."""
    return f"kryonix.{tenant}.{hashlib.sha256(bucket.name.encode()).hexdigest()[:12]}"


class S3Admin:
    """One bucket of one tenant, through the operator's credentials; they are never kept."""

    def __init__(self, bucket: Bucket, tenant: TenantId, operator: S3Credentials) -> None:
        self.bucket = bucket
        self.user = user_of(tenant, bucket)
        self._operator = operator

    def bucket_state(self) -> BucketState:
        """
        How the bucket is found; raises StoreDenied where it is somebody else's.

        Raises ConfigError where it has a policy that is not of this tenant's user.
        """
        from botocore.exceptions import ClientError

        try:
            found = json.loads(self._s3.get_bucket_policy(Bucket=self.bucket.name)["Policy"])
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "NoSuchBucketPolicy":
                return BucketState.OPEN
            with suppress(ObjectMissing), self._translated("the bucket's policy"):
                raise
            return BucketState.MISSING
        if not self._is_ours(found):
            raise ConfigError(
                f"{self.bucket.address} has a policy that is not of {self.user}: it may be another"
                " tenant's",
                "Give every tenant and region a bucket of its own; where this one is free, remove"
                " its policy.",
            )
        return BucketState.CLOSED

    def make_bucket(self) -> None:
        """Make the bucket; one that is ours already is left as it is."""
        S3Control(self.bucket, self._operator, PATIENT).make_bucket()

    def _is_ours(self, policy: Any) -> bool:
        ours = json.loads(self.guard())["Statement"]
        try:
            theirs = policy["Statement"]
            keys = ("Sid", "Effect", "Condition")
            return [[row[key] for key in keys] for row in theirs] == [
                [row[key] for key in keys] for row in ours
            ]
        except (KeyError, TypeError):
            return False

    def has_user(self) -> bool:
        """Whether the user is there."""
        try:
            with self._translated(f"user {self.user}"):
                self._iam.get_user(UserName=self.user)
        except ObjectMissing:
            return False
        return True

    def make_user(self) -> None:
        """Make the user where it is missing, with the policy that allows its bucket alone."""
        with self._translated(f"user {self.user}"):
            with suppress(self._iam.exceptions.EntityAlreadyExistsException):
                self._iam.create_user(UserName=self.user)
            self._iam.put_user_policy(
                UserName=self.user, PolicyName=_POLICY, PolicyDocument=self._allowance()
            )

    def make_key(self) -> S3Credentials:
        """A new key pair of the user."""
        with self._translated(f"a key of user {self.user}"):
            made = self._iam.create_access_key(UserName=self.user)["AccessKey"]
        return S3Credentials(made["AccessKeyId"], Secret(made["SecretAccessKey"]))

    def key_ids(self) -> list[str]:
        """The ids of the user's keys."""
        with self._translated(f"the keys of user {self.user}"):
            rows = self._iam.list_access_keys(UserName=self.user)["AccessKeyMetadata"]
        return [row["AccessKeyId"] for row in rows]

    def drop_key(self, key_id: str) -> None:
        """Make a key open nothing any more; one that is missing is no error."""
        with suppress(ObjectMissing), self._translated(f"a key of user {self.user}"):
            self._iam.delete_access_key(UserName=self.user, AccessKeyId=key_id)

    def close_bucket(self) -> None:
        """Deny the bucket's objects to everyone but the user."""
        with self._translated("the bucket's policy"):
            self._s3.put_bucket_policy(Bucket=self.bucket.name, Policy=self.guard())

    def open_bucket(self) -> None:
        """Take that back."""
        with suppress(ObjectMissing), self._translated("the bucket's policy"):
            self._s3.delete_bucket_policy(Bucket=self.bucket.name)

    def drop_user(self) -> None:
        """Remove the user with its keys and policy; one that is missing is no error."""
        if not self.has_user():
            return
        for key_id in self.key_ids():
            self.drop_key(key_id)
        gone = self._iam.exceptions.NoSuchEntityException
        with self._translated(f"user {self.user}"):
            with suppress(gone):
                self._iam.delete_user_policy(UserName=self.user, PolicyName=_POLICY)
            with suppress(gone):
                self._iam.delete_user(UserName=self.user)

    def drop_bucket(self) -> None:
        """Remove the bucket where it is empty; raises StoreError where it is not."""
        name = self.bucket.name
        with suppress(ObjectMissing), self._translated("the bucket"):
            if self._s3.list_objects_v2(Bucket=name, MaxKeys=1)["KeyCount"]:
                # Not every server looks before it deletes.
                raise StoreError(f"{self.bucket.address} is not empty, and stays")
            self._s3.delete_bucket(Bucket=name)

    def guard(self) -> str:
        """
        The bucket's policy.

        It leaves the policy itself to the operator: nobody is locked out for good, and whoever
        opens the bucket leaves a trace in the server's own log.
        """
        everyone_else = {"StringNotEquals": {"aws:username": self.user}}
        return json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Sid": _GUARD,
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": [*_OBJECTS, *_LISTING],
                        "Resource": self._resources(),
                        "Condition": everyone_else,
                    }
                ],
            }
        )

    def _allowance(self) -> str:
        statement = {
            "Effect": "Allow",
            "Action": [*_OBJECTS, *_LISTING],
            "Resource": self._resources(),
        }
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    def _resources(self) -> list[str]:
        partition = "aws-cn" if self.bucket.region.startswith("cn-") else "aws"
        if self.bucket.region.startswith("us-gov-"):
            partition = "aws-us-gov"
        name = f"arn:{partition}:s3:::{self.bucket.name}"
        return [name, f"{name}/*"]

    @cached_property
    def _s3(self) -> S3Client:
        client: S3Client = connection("s3", self.bucket, self._operator, PATIENT)
        return client

    @cached_property
    def _iam(self) -> Any:
        return connection("iam", self.bucket, self._operator, PATIENT)

    def _translated(self, what: str) -> AbstractContextManager[None]:
        return translated(self.bucket, what)
