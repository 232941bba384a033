"""What `keys destroy` reaches on a real S3 server, and what it says that it does not."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from kryonix_backup.crypto.keyring import open_keyring
from kryonix_backup.crypto.keys import Owner
from kryonix_backup.errors import KeyUnusable
from kryonix_backup.maintenance.destruction import destroy_keys
from kryonix_backup.repository.repository import Repository
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import ANYWHERE
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.repositories import ACME, back_up, key_file, new_repository
from kryonix_backup.testing.s3_servers import S3Server
from kryonix_backup.testing.sources import MemorySource, Thing

pytestmark = pytest.mark.service


def _client(server: S3Server) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.root.access_key_id,
        aws_secret_access_key=server.root.secret_access_key,
    )


@pytest.mark.parametrize("versioned", [False, True])
def test_a_bucket_that_keeps_versions_keeps_keyrings_and_the_record_says_so(
    seaweedfs: S3Server, *, versioned: bool
) -> None:
    bucket = f"destroyed-{int(versioned)}"
    seaweedfs.make_bucket(bucket)
    client = _client(seaweedfs)
    if versioned:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    store = open_store(seaweedfs.region(bucket, credentials=seaweedfs.root), {}, ANYWHERE)
    repository = new_repository(store)
    back_up(repository, MemorySource({b"a": Thing(b"of acme")}))

    record = destroy_keys(ACME, {"primary": store}, {"key-file": key_file()}, "ann", FixedClock())

    assert record.complete
    with pytest.raises(KeyUnusable, match="were destroyed"):
        Repository.open(store, ACME, key_file())
    listed = client.list_object_versions(Bucket=bucket, Prefix="keys/")
    old = [(each["Key"], each["VersionId"]) for each in listed.get("Versions", [])]
    assert bool(old) is versioned
    for name, version in old:
        body = client.get_object(Bucket=bucket, Key=name, VersionId=version)["Body"].read()
        owner = Owner(repository.id, ACME)
        assert open_keyring(name, body, owner, key_file()).records, "the remark is true"
    assert any("keeps versions" in remark for remark in record.remarks)
