"""The operator's calls, against a real server."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kryonix_backup.errors import StoreDenied
from kryonix_backup.model import TenantId
from kryonix_backup.settings import Secret
from kryonix_backup.storage.credentials import S3Credentials
from kryonix_backup.storage.location import Bucket, parse_location
from kryonix_backup.storage.s3_admin import BucketState, S3Admin, user_of
from kryonix_backup.testing.s3_servers import S3Server

ACME = TenantId("acme")


def bucket(url: str = "s3://acme") -> Bucket:
    found = parse_location(url)
    assert isinstance(found, Bucket)
    return found


def admin_of(server: S3Server, name: str) -> S3Admin:
    pair = server.root
    operator = S3Credentials(pair.access_key_id, Secret(pair.secret_access_key))
    return S3Admin(bucket(server.url(name)), ACME, operator)


def test_no_two_tenants_and_buckets_share_a_user() -> None:
    names = {
        user_of(TenantId(tenant), replace(bucket(), name=name))
        for tenant in ("a", "a-b", "b" * 40)
        for name in ("c", "b-c", "x" * 63)
    }

    assert len(names) == 9
    assert max(map(len, names)) <= 64  # Amazon's limit


def test_the_policies_name_the_bucket_alone() -> None:
    admin = S3Admin(bucket(), ACME, S3Credentials("a", Secret("b")))
    (row,) = json.loads(admin.guard())["Statement"]

    assert row["Resource"] == ["arn:aws:s3:::acme", "arn:aws:s3:::acme/*"]
    assert (row["Effect"], row["Principal"]) == ("Deny", "*")
    assert row["Condition"] == {"StringNotEquals": {"aws:username": admin.user}}
    assert not [each for each in row["Action"] if "Policy" in each]  # nobody is locked out for good


@pytest.mark.parametrize(("region", "partition"), [("cn-north-1", "aws-cn"),
                                                   ("us-gov-west-1", "aws-us-gov")])  # fmt: skip
def test_amazons_other_partitions_have_names_of_their_own(region: str, partition: str) -> None:
    there = bucket(f"s3://acme?region={region}")
    guard = S3Admin(there, ACME, S3Credentials("a", Secret("b"))).guard()

    assert f"arn:{partition}:s3:::acme" in guard


@pytest.mark.service
def test_a_bucket_and_its_user_come_and_go(seaweedfs: S3Server) -> None:
    admin = admin_of(seaweedfs, "come-and-go")
    assert admin.bucket_state() is BucketState.MISSING
    admin.drop_user()
    admin.drop_bucket()

    admin.make_bucket()
    admin.make_user()
    admin.make_user()
    pair = admin.make_key()
    assert admin.bucket_state() is BucketState.OPEN
    admin.close_bucket()
    assert admin.bucket_state() is BucketState.CLOSED
    assert admin.key_ids() == [pair.access_key_id]
    assert pair.secret_access_key.reveal().decode() not in repr(pair)

    admin.open_bucket()
    admin.drop_user()
    admin.drop_bucket()
    assert admin.bucket_state() is BucketState.MISSING
    assert not admin.has_user()


@pytest.mark.service
def test_who_is_no_operator_makes_nothing(seaweedfs: S3Server) -> None:
    admin = admin_of(seaweedfs, "no-operator")
    admin.make_bucket()
    admin.make_user()
    stranger = S3Admin(admin.bucket, ACME, admin.make_key())

    for attempt in (stranger.bucket_state, stranger.close_bucket, stranger.open_bucket):
        with pytest.raises(StoreDenied):
            attempt()
