from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.errors import ConfigError, InvalidUrl, SecretMissing
from kryonix_backup.model import RegionName
from kryonix_backup.settings import RegionSettings, Secret
from kryonix_backup.storage.registry import open_store, s3_credentials
from kryonix_backup.storage.residency import ANYWHERE

AWS = {"AWS_ACCESS_KEY_ID": "aws", "AWS_SECRET_ACCESS_KEY": "aws-secret"}
OWN = {
    "KRYONIX_US_WEST_2_ACCESS_KEY_ID": "own",
    "KRYONIX_US_WEST_2_SECRET_ACCESS_KEY": "own-secret",
}


def region(
    url: str = "s3://acme", key: str | None = None, secret: str | None = None
) -> RegionSettings:
    return RegionSettings(RegionName("us-west-2"), url, key, Secret(secret) if secret else None)


def test_a_directory_is_opened_and_made(tmp_path: Path) -> None:
    store = open_store(region(f"file://{tmp_path}/new/repository"), {}, ANYWHERE)

    store.create()
    store.put("a", b"body")

    assert (tmp_path / "new/repository/a").read_bytes() == b"body"
    assert store.address == f"file://{tmp_path}/new/repository"


def test_an_s3_region_is_opened_without_asking_the_server() -> None:
    store = open_store(region("s3://acme?endpoint=http://127.0.0.1:1"), AWS, ANYWHERE)

    assert store.address == "s3://acme at http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("settings", "env", "expected"),
    [
        (region(key="set", secret="set-secret"), OWN | AWS, ("set", b"set-secret", None)),
        (region(), OWN | AWS, ("own", b"own-secret", None)),
        (region(), AWS, ("aws", b"aws-secret", None)),
        (region(), AWS | {"AWS_SESSION_TOKEN": "token"}, ("aws", b"aws-secret", b"token")),
        (region(), OWN | {"AWS_SESSION_TOKEN": "token"}, ("own", b"own-secret", None)),
        (region(), AWS | dict.fromkeys(OWN, ""), ("aws", b"aws-secret", None)),
    ],
)
def test_credentials_come_from_the_nearest_place(
    settings: RegionSettings, env: dict[str, str], expected: tuple[str, bytes, bytes | None]
) -> None:
    key, secret, token = s3_credentials(settings, env, None)

    assert (key, secret.reveal(), token.reveal() if token else None) == expected


@pytest.mark.parametrize(
    ("env", "missing"),
    [
        ({}, "no S3 credentials"),
        ({"AWS_ACCESS_KEY_ID": "aws"}, "AWS_SECRET_ACCESS_KEY is not set"),
        (AWS | {"KRYONIX_US_WEST_2_SECRET_ACCESS_KEY": "x"}, "US_WEST_2_ACCESS_KEY_ID is not set"),
    ],
)
def test_missing_credentials_say_what_to_set(env: dict[str, str], missing: str) -> None:
    with pytest.raises(SecretMissing, match=missing) as caught:
        open_store(region(), env, ANYWHERE)

    assert "us-west-2" in str(caught.value)
    assert "KRYONIX_US_WEST_2_ACCESS_KEY_ID" in caught.value.hint


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidUrl):
        open_store(region("ftp://acme"), AWS, ANYWHERE)


@pytest.mark.parametrize("name", ["private_endpoint", "proxy", "ca_bundle"])
def test_a_directory_has_no_network(tmp_path: Path, name: str) -> None:
    network: dict[str, Any] = {name: "http://10.0.0.5"}
    said = RegionSettings(RegionName("primary"), f"file://{tmp_path}", **network)

    with pytest.raises(ConfigError, match=f"region primary is a directory, and has {name}"):
        open_store(said, {}, ANYWHERE)


def test_a_missing_file_of_authorities_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"AWS_CA_BUNDLE names .*none\.pem"):
        open_store(region(), AWS | {"AWS_CA_BUNDLE": str(tmp_path / "none.pem")}, ANYWHERE)
