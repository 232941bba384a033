"""With the credentials of A's bucket, however they were come by, nothing of B's is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from kryonix_backup.errors import StoreDenied
from kryonix_backup.settings import PRIMARY, Secret
from kryonix_backup.storage.credentials import S3Credentials
from kryonix_backup.storage.registry import kept_credentials, open_store
from kryonix_backup.storage.residency import ANYWHERE
from kryonix_backup.storage.s3_admin import user_of
from kryonix_backup.storage.s3_control import connection, translated
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.s3_servers import S3Server
from tests.attacks.conftest import Town
from tests.attacks.town import Tenant

pytestmark = pytest.mark.service


def client(tenant: Tenant, service: str = "s3", pair: S3Credentials | None = None) -> Any:
    """A client of the vendor's with the tenant's key pair, or another one."""
    own = pair or kept_credentials(tenant.settings.primary, tenant.env, tenant.id)
    return connection(service, tenant.bucket(), own)


def refused(town: Town, attempt: Callable[[], Any]) -> None:
    with pytest.raises(StoreDenied), translated(town.b.bucket(), "what is attacked"):
        attempt()


def test_the_store_of_the_project_is_refused_and_says_where(town: Town) -> None:
    there = replace(town.a.stolen(), url=town.b.settings.primary.url)  # A's credentials, B's bucket
    store = open_store(there, {}, ANYWHERE, clock=FixedClock())
    name = next(iter(town.b.whole[PRIMARY]))

    for attempt in (
        lambda: store.get(name),
        lambda: store.get_range(name, 0, 1),
        lambda: store.size(name),
        lambda: list(store.list("")),
        lambda: store.put("packs/aa/x", b"planted"),
        lambda: store.put("packs/aa/y", bytes(33 << 20)),
        lambda: store.replace(name, b"planted"),
        lambda: store.delete(name),
    ):
        with pytest.raises(StoreDenied, match=town.b.bucket().name):
            attempt()
    assert town.b.objects() == town.b.whole[PRIMARY]


def test_the_server_copies_nothing_over(town: Town) -> None:
    """Not even where the bytes never leave it: neither whole objects nor parts."""
    mine, theirs = town.a.bucket().name, town.b.bucket().name
    thief, name = client(town.a), next(iter(town.b.whole[PRIMARY]))
    own = next(iter(town.a.whole[PRIMARY]))
    copied = {"Bucket": mine, "Key": "packs/aa/copied", "CopySource": f"{theirs}/{name}"}
    upload = thief.create_multipart_upload(Bucket=mine, Key="packs/aa/copied")["UploadId"]

    refused(town, lambda: thief.copy_object(**copied))
    refused(town, lambda: thief.upload_part_copy(**copied, PartNumber=1, UploadId=upload))
    planted = {"Bucket": theirs, "Key": "packs/aa/planted", "CopySource": f"{mine}/{own}"}
    refused(town, lambda: thief.copy_object(**planted))
    thief.abort_multipart_upload(Bucket=mine, Key="packs/aa/copied", UploadId=upload)
    assert town.b.objects() == town.b.whole[PRIMARY]


@pytest.mark.parametrize("path", ["../{b}/{name}", "x/../../{b}/{name}", "%2e%2e/{b}/{name}"])
def test_no_name_leads_out_of_the_bucket(town: Town, path: str) -> None:
    name = next(iter(town.b.whole[PRIMARY]))
    thief = client(town.a)
    key = path.format(b=town.b.bucket().name, name=name)

    try:
        body = thief.get_object(Bucket=town.a.bucket().name, Key=key)["Body"].read()
    except thief.exceptions.ClientError:
        return
    assert body != town.b.whole[PRIMARY][name]


def test_its_own_rights_are_not_its_to_change(town: Town) -> None:
    mine, theirs, thief = town.a.bucket().name, town.b.bucket().name, client(town.a)
    policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",'
    policy += f' "Action": "s3:*", "Resource": "arn:aws:s3:::{theirs}/*"}}]}}'

    for bucket in (mine, theirs):
        for attempt in (
            lambda bucket=bucket: thief.get_bucket_policy(Bucket=bucket),
            lambda bucket=bucket: thief.put_bucket_policy(Bucket=bucket, Policy=policy),
            lambda bucket=bucket: thief.delete_bucket_policy(Bucket=bucket),
            lambda bucket=bucket: thief.put_bucket_acl(Bucket=bucket, ACL="public-read-write"),
            lambda bucket=bucket: thief.delete_bucket(Bucket=bucket),
        ):
            refused(town, attempt)
    refused(town, lambda: thief.create_bucket(Bucket="attack-new"))
    assert theirs not in str(thief.list_buckets()["Buckets"])


def test_no_user_is_made_and_none_gets_more(town: Town) -> None:
    thief = client(town.a, "iam")
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: thief.create_user(UserName="evil"),
        lambda: thief.create_access_key(UserName=user_of_b(town)),
        lambda: thief.put_user_policy(
            UserName=user_of_b(town), PolicyName="x", PolicyDocument='{"Statement": []}'
        ),
    )
    for attempt in attempts:
        with pytest.raises(thief.exceptions.ClientError):
            attempt()


def user_of_b(town: Town) -> str:
    return user_of(town.b.id, town.b.bucket())


def test_half_a_pair_and_no_pair_open_nothing(town: Town) -> None:
    a, b = town.a.stolen(), town.b.stolen()
    assert a.secret_access_key is not None
    assert b.access_key_id is not None
    theirs = town.b.bucket().name
    crossed = client(town.a, pair=S3Credentials(b.access_key_id, a.secret_access_key))
    wrong = client(town.a, pair=S3Credentials(b.access_key_id, Secret("x" * 40)))
    nobody = connection("s3", town.b.bucket(), None)

    for thief in (crossed, wrong, nobody):
        refused(town, partial(thief.list_objects_v2, Bucket=theirs))
        refused(town, partial(thief.put_object, Bucket=theirs, Key="x", Body=b""))


def test_who_may_do_everything_elsewhere_is_refused_too(town: Town, seaweedfs: S3Server) -> None:
    """The operator's pair: it could change the policy, but as long as that stands it reads none."""
    root = S3Credentials(seaweedfs.root.access_key_id, Secret(seaweedfs.root.secret_access_key))
    operator, theirs = client(town.b, pair=root), town.b.bucket().name
    name = next(iter(town.b.whole[PRIMARY]))

    refused(town, lambda: operator.list_objects_v2(Bucket=theirs))
    refused(town, lambda: operator.get_object(Bucket=theirs, Key=name))
    refused(town, lambda: operator.delete_object(Bucket=theirs, Key=name))
