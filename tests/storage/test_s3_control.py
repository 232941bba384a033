from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kryonix_backup.errors import (
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreThrottled,
    StoreUnavailable,
)
from kryonix_backup.model import MIB
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.location import Bucket, parse_location
from kryonix_backup.storage.registry import s3_credentials
from kryonix_backup.storage.s3_control import S3Control
from kryonix_backup.testing.s3_servers import S3Server
from tests.services.s3 import TENANT_A, TENANT_B, new_prefix
from tests.services.s3_proxy import Answer, AnswerLost, CutRequest, S3Proxy
from tests.storage.test_s3 import at, both, open_bare, server

__all__ = ["server"]

pytestmark = pytest.mark.service


def control(region: RegionSettings) -> S3Control:
    bucket = parse_location(region.url)
    assert isinstance(bucket, Bucket)
    return S3Control(bucket, s3_credentials(region, {}, None))


def open_uploads(region: RegionSettings) -> int:
    """How many uploads nobody has completed or discarded."""
    made = control(region)._client.list_multipart_uploads(Bucket=region.url[5:].split("?")[0])
    return len(made.get("Uploads", []))


@both
def test_of_six_racing_uploads_one_whole_body_stays(server: S3Server) -> None:
    """SeaweedFS lets two completions that come at once both succeed; the port says so."""
    region = server.region(new_prefix(), credentials=server.root)
    made = control(region)
    made.make_bucket()
    made.make_bucket()
    barrier = threading.Barrier(6)

    def race(number: int) -> int | None:
        barrier.wait()
        try:
            made.put_parts("race", b"writer %d" % number, "object race")
        except (ObjectExists, StoreUnavailable):
            return None
        return number

    with ThreadPoolExecutor(6) as pool:
        winners = [number for number in pool.map(race, range(6)) if number is not None]

    assert winners
    body = open_bare(region).get("race")
    assert body in [b"writer %d" % number for number in winners]
    with pytest.raises(ObjectExists):
        made.put_parts("race", b"too late", "object race")
    assert open_bare(region).get("race") == body


@both
def test_an_upload_that_fails_is_discarded(server: S3Server) -> None:
    region = server.region(new_prefix(), credentials=server.root)
    control(region).make_bucket()
    body = b"x" * (33 * MIB)

    with S3Proxy(server.endpoint) as proxy:
        by_proxy = control(at(region, endpoint=proxy.endpoint))
        proxy.script(None, None, CutRequest(MIB))
        with pytest.raises(StoreUnavailable, match="object large"):
            by_proxy.put_parts("large", body, "object large")
        proxy.script(Answer(503, "SlowDown"))
        with pytest.raises(StoreThrottled):
            by_proxy.put_parts("large", body, "object large")
        proxy.script(None, None, Answer(500, "InternalError"), Answer(500, "InternalError"))
        with pytest.raises(StoreUnavailable):
            by_proxy.put_parts("large", b"small", "object large")

    assert list(open_bare(region).list("")) == []
    assert open_uploads(region) == 1  # the last: even to discard it was refused


def test_a_completion_whose_answer_was_lost_has_written_it(seaweedfs: S3Server) -> None:
    region = at(seaweedfs.region(TENANT_A), prefix=new_prefix())
    name = region.url[5:].split("?")[0].partition("/")[2] + "/large"

    with S3Proxy(seaweedfs.endpoint) as proxy:
        proxy.script(None, None, AnswerLost())
        with pytest.raises(StoreUnavailable):
            control(at(region, endpoint=proxy.endpoint)).put_parts(name, b"body", "object large")

    assert open_bare(region).get("large") == b"body"


def test_what_is_denied_or_missing_says_so(seaweedfs: S3Server, ministack: S3Server) -> None:
    stranger = seaweedfs.region(TENANT_B, credentials=seaweedfs.buckets[TENANT_A])
    with pytest.raises(StoreDenied):
        control(stranger).put_parts("a", b"x", "object a")
    with pytest.raises(StoreDenied):
        control(seaweedfs.region("not-mine", credentials=seaweedfs.buckets[TENANT_A])).make_bucket()
    with pytest.raises(ObjectMissing, match="the bucket does not exist"):
        control(ministack.region("nobody-made-this")).put_parts("a", b"x", "object a")


def test_a_bucket_is_made_in_its_region(ministack: S3Server) -> None:
    bucket = new_prefix()
    region = ministack.region(bucket)
    there = RegionSettings(
        region.name,
        region.url.replace("us-east-1", "sa-east-1"),
        region.access_key_id,
        region.secret_access_key,
    )
    made = control(there)

    made.make_bucket()

    location = made._client.get_bucket_location(Bucket=bucket)
    assert location["LocationConstraint"] == "sa-east-1"


def test_boto3_is_not_imported_before_it_is_needed(seaweedfs: S3Server) -> None:
    """It costs half a second, which a backup into a bucket that exists does not pay."""
    program = """
import os, sys
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import ANYWHERE
store = open_store(RegionSettings("primary", sys.argv[1]), os.environ, ANYWHERE)
store.put(sys.argv[2], b"body")
assert store.get(sys.argv[2]) == b"body" and store.size(sys.argv[2]) == 4 and list(store.list(""))
print(*sorted({"boto3", "botocore"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, seaweedfs.url(TENANT_A), new_prefix()],
        env=seaweedfs.buckets[TENANT_A].environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("\n", "")
