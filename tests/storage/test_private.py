"""A private endpoint replaces the public one, and is private."""

from __future__ import annotations

import pytest

from kryonix_backup.errors import ConfigError, InvalidUrl
from kryonix_backup.model import RegionName
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.location import Bucket, parse_location
from kryonix_backup.storage.private import reached


def region(private: str | None) -> RegionSettings:
    return RegionSettings(RegionName("primary"), "s3://acme", private_endpoint=private)


@pytest.fixture
def bucket() -> Bucket:
    found = parse_location("s3://acme")
    assert isinstance(found, Bucket)
    return found


def test_without_one_the_address_stands(bucket: Bucket) -> None:
    assert reached(region(None), bucket) is bucket


@pytest.mark.parametrize(
    "endpoint", ["https://127.0.0.1:9000", "https://127.0.0.1:9000/", "http://localhost"]
)
def test_the_private_one_is_used_in_its_place(bucket: Bucket, endpoint: str) -> None:
    found = reached(region(endpoint), bucket)

    assert found.endpoint == endpoint.rstrip("/")
    assert (found.name, found.path_style) == ("acme", True)


@pytest.mark.parametrize("host", ["0x8.8.8.8", "::ffff:8.8.8.8", "8.8.8.8", "2001:4860:4860::8888"])
def test_a_public_address_is_refused(
    bucket: Bucket, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver's answer is given here: a test asks none outside this machine."""
    address = host.replace("0x8", "8")
    monkeypatch.setattr(
        "socket.getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("10.0.0.5", 443)),
                                                (0, 0, 0, "", (address, 443))]
    )  # fmt: skip

    with pytest.raises(ConfigError, match="public address") as caught:
        reached(region("https://store.example.com"), bucket)
    assert "store.example.com" in caught.value.message


@pytest.mark.parametrize(
    "endpoint",
    ["store", "ftp://10.0.0.5", "https://", "https://key:secret@10.0.0.5", "https://10.0.0.5/path",
     "https://10.0.0.5:x", "https://10.0.0.5?a=b"],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused_and_not_repeated(bucket: Bucket, endpoint: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        reached(region(endpoint), bucket)
    assert "secret" not in caught.value.message
