"""Somebody with a bucket's credentials and no key, against the audit chain on a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.s3_servers import S3Server
from tests.integration.command import Command
from tests.integration.stores import store_of
from tests.services.s3 import TENANT_A, new_prefix, seaweedfs  # noqa: F401

pytestmark = pytest.mark.service


class Bucket:
    """A tenant of one machine, and what an attacker reads and writes behind its back."""

    def __init__(self, server: S3Server, work: Path) -> None:
        (work / "tree").mkdir()
        (work / "tree" / "letter").write_text("dear reader")
        self.url = server.url(TENANT_A, new_prefix())
        keys = server.buckets[TENANT_A]
        self.command = Command.with_key_file(work / "home", **keys.environment())
        self.region = ("--region", f"primary={self.url}")
        self.store: ObjectStore = store_of(self.url, self.command)
        self.command.run(
            "tenant", "add", "acme", *self.region, "--source", f"files=files://{work / 'tree'}"
        )

    def objects(self) -> dict[str, bytes]:
        return {info.name: self.store.get(info.name) for info in self.store.list("")}

    def set_back(self, state: dict[str, bytes]) -> None:
        for name in self.objects().keys() - state.keys():
            self.store.delete(name)


@pytest.fixture
def bucket(seaweedfs: S3Server, tmp_path: Path) -> Bucket:  # noqa: F811
    return Bucket(seaweedfs, tmp_path)


def test_a_bucket_that_was_set_back_stops_every_command(bucket: Bucket, tmp_path: Path) -> None:
    command = bucket.command
    command.run("backup", "acme")
    older = bucket.objects()
    command.run("backup", "acme")
    bucket.set_back(older)

    for words in (
        ("backup", "acme"),
        ("snapshots", "acme"),
        ("cat", "acme", "latest", "files/letter"),
    ):
        assert "records 4 to 5" in command.run(*words, expect=57).message
    report = command.report("audit", "acme", "verify", expect=57)
    assert report["findings"][0]["first"] == 4

    bare = command.elsewhere(tmp_path / "bare").run("audit", "acme", "verify", *bucket.region)
    assert "has not seen this chain before" in bare.out
    command.run("audit", "acme", "accept", "--reason", "the bucket came back from a copy")
    command.run("backup", "acme")
    assert command.report("audit", "acme", "verify")["accepted"][0]["kind"] == "missing"


def test_the_newest_record_that_was_removed_is_missed(bucket: Bucket) -> None:
    bucket.command.run("backup", "acme")
    bucket.store.delete("audit/000000000003")

    assert "records 3 to 3" in bucket.command.run("backup", "acme", expect=57).message


def test_records_that_were_exchanged_are_located(bucket: Bucket) -> None:
    bucket.command.run("backup", "acme")
    one, two = (bucket.store.get(f"audit/00000000000{number}") for number in (1, 2))
    bucket.store.replace("audit/000000000001", two)
    bucket.store.replace("audit/000000000002", one)

    found = bucket.command.report("audit", "acme", "verify", expect=58)["findings"]
    assert [(each["kind"], each["first"], each["last"]) for each in found] == [
        ("moved", 1, 1), ("moved", 2, 2),
    ]  # fmt: skip
