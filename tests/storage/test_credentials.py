"""A key pair is kept whole, for its owner alone, and for one bucket."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError, InvalidName
from kryonix_backup.model import RegionName, TenantId
from kryonix_backup.settings import Secret
from kryonix_backup.storage.credentials import KeptCredentials, S3Credentials
from kryonix_backup.storage.location import Bucket, parse_location

PRIMARY = RegionName("primary")
PAIR = S3Credentials("id", Secret("the secret"))


def bucket() -> Bucket:
    found = parse_location("s3://acme?endpoint=https://s3.example.com")
    assert isinstance(found, Bucket)
    return found


@pytest.fixture
def kept(tmp_path: Path) -> KeptCredentials:
    return KeptCredentials({"KRYONIX_HOME": str(tmp_path)}, TenantId("acme"))


def test_a_pair_comes_back_for_its_bucket_alone(kept: KeptCredentials) -> None:
    assert kept.load(PRIMARY, bucket()) is None
    kept.keep(PRIMARY, bucket(), PAIR)

    found = kept.load(PRIMARY, bucket())

    assert found is not None
    assert (found.access_key_id, found.secret_access_key.reveal()) == ("id", b"the secret")
    assert kept.load(PRIMARY, replace(bucket(), name="other")) is None
    assert kept.load(PRIMARY, replace(bucket(), endpoint="https://elsewhere")) is None
    assert kept.load(RegionName("secondary"), bucket()) is None


def test_only_its_owner_can_get_at_it(kept: KeptCredentials, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        kept.keep(PRIMARY, bucket(), PAIR)
    finally:
        os.umask(before)

    file = tmp_path / "credentials/acme/primary"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [stat.S_IMODE(each.stat().st_mode) for each in file.parents[:2]] == [0o700, 0o700]
    assert [each.name for each in file.parent.iterdir()] == ["primary"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_one_that_others_can_get_at_is_not_used(
    kept: KeptCredentials, tmp_path: Path, mode: int
) -> None:
    kept.keep(PRIMARY, bucket(), PAIR)
    (tmp_path / "credentials/acme/primary").chmod(mode)

    with pytest.raises(ConfigError, match="others than its owner"):
        kept.load(PRIMARY, bucket())


def test_a_link_is_not_followed(kept: KeptCredentials, tmp_path: Path) -> None:
    kept.keep(PRIMARY, bucket(), PAIR)
    (tmp_path / "credentials/acme/secondary").symlink_to("primary")

    with pytest.raises(ConfigError, match="cannot be used"):
        kept.load(RegionName("secondary"), bucket())


@pytest.mark.parametrize("body", ["", "[]", json.dumps({"bucket": "acme"})])
def test_what_is_no_pair_says_so_and_shows_nothing(
    kept: KeptCredentials, tmp_path: Path, body: str
) -> None:
    kept.keep(PRIMARY, bucket(), PAIR)
    (tmp_path / "credentials/acme/primary").write_text(body)

    with pytest.raises(ConfigError, match="does not hold a key pair") as caught:
        kept.load(PRIMARY, bucket())
    assert "tenant isolate" in caught.value.hint


def test_a_forgotten_pair_is_gone(kept: KeptCredentials, tmp_path: Path) -> None:
    kept.keep(PRIMARY, bucket(), PAIR)
    kept.forget(PRIMARY)
    kept.forget(PRIMARY)

    assert kept.load(PRIMARY, bucket()) is None
    assert not (tmp_path / "credentials/acme").exists()


def test_no_name_leads_out_of_the_folder(kept: KeptCredentials, tmp_path: Path) -> None:
    with pytest.raises(InvalidName):
        kept.keep(RegionName("../../x"), bucket(), PAIR)
    with pytest.raises(InvalidName):
        KeptCredentials({"KRYONIX_HOME": str(tmp_path)}, TenantId("../beta"))


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("")
    kept = KeptCredentials({"KRYONIX_HOME": str(tmp_path)}, TenantId("acme"))

    with pytest.raises(ConfigError, match="cannot be used"):
        kept.keep(PRIMARY, bucket(), PAIR)
    with pytest.raises(ConfigError, match="cannot be used"):
        kept.load(PRIMARY, bucket())
