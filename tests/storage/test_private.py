"""A private endpoint replaces the public one and is private; a proxy is a region's own."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.errors import ConfigError, InvalidUrl, SecretMissing, StoreUnavailable
from kryonix_backup.model import RegionName
from kryonix_backup.network import Network
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.location import Bucket, parse_location
from kryonix_backup.storage.private import reached
from tests.services.network import Authority

PROXY = "http://10.0.0.9:3128"
MACHINES = {"HTTPS_PROXY": "http://proxy.internal:3128"}


def region(
    private: str | None = None, proxy: str | None = None, bundle: str | None = None
) -> RegionSettings:
    name = RegionName("primary")
    return RegionSettings(
        name, "s3://acme", private_endpoint=private, proxy=proxy, ca_bundle=bundle
    )


def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses lead to themselves, and names nowhere."""

    def answer(host: str, port: int, **_: Any) -> Any:
        if host[0].isdigit():
            return [(0, 0, 0, "", (host, port))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", answer)


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """What the resolver answers: a test asks none outside this machine."""
    rows = [(0, 0, 0, "", (address, 443)) for address in addresses]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: rows)


@pytest.fixture
def bucket() -> Bucket:
    found = parse_location("s3://acme")
    assert isinstance(found, Bucket)
    return found


def test_without_any_the_address_stands(bucket: Bucket) -> None:
    assert reached(region(), bucket, {}) == bucket
    assert bucket.network == Network()


@pytest.mark.parametrize(
    "endpoint", ["https://127.0.0.1:9000", "https://127.0.0.1:9000/", "http://localhost"]
)
def test_the_private_one_is_used_in_its_place(bucket: Bucket, endpoint: str) -> None:
    found = reached(region(endpoint), bucket, {})

    assert found.server == found.host_url == endpoint.rstrip("/")
    assert (found.name, found.path_style) == ("acme", True)
    assert found.address == bucket.address, "what is known of the place stays known"
    assert found.way == f"{bucket.address}, reached at {found.server}"


@pytest.mark.parametrize("host", ["0x8.8.8.8", "::ffff:8.8.8.8", "8.8.8.8", "2001:4860:4860::8888"])
def test_a_public_address_is_refused(
    bucket: Bucket, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, "10.0.0.5", host.replace("0x8", "8"))

    with pytest.raises(ConfigError, match="public address") as caught:
        reached(region("https://store.example.com"), bucket, {})
    assert "store.example.com" in caught.value.message


@pytest.mark.parametrize(
    "endpoint",
    ["store", "ftp://10.0.0.5", "https://", "https://key:secret@10.0.0.5", "https://10.0.0.5/path",
     "https://10.0.0.5:x", "https://10.0.0.5?a=b", "https://8.8.8.8\\.10.0.0.5",
     "https://10.0.0.5#x", "https://10.0.0.5:99999"],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused_and_not_repeated(bucket: Bucket, endpoint: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        reached(region(endpoint), bucket, {})
    assert "secret" not in caught.value.message


def test_a_proxy_is_the_regions_whatever_the_environment_says(bucket: Bucket) -> None:
    found = reached(region(proxy=PROXY), bucket, {**MACHINES, "NO_PROXY": "*"})

    assert found.network.proxies() == {"http": PROXY, "https": PROXY}
    assert found.way == f"{bucket.address} by way of {PROXY}"
    assert found.address == bucket.address  # by which what is known of the place is found


def test_its_login_is_that_of_the_regions_variables(bucket: Bucket) -> None:
    env = {"KRYONIX_PRIMARY_PROXY_USER": "backup", "KRYONIX_PRIMARY_PROXY_PASSWORD": "hunter2"}

    found = reached(region(proxy=PROXY), bucket, env)

    assert found.network.proxies()["https"] == "http://backup:hunter2@10.0.0.9:3128"
    assert "hunter2" not in repr(found) + found.way
    with pytest.raises(SecretMissing, match="region primary: KRYONIX_PRIMARY_PROXY_PASSWORD"):
        reached(region(proxy=PROXY), bucket, {"KRYONIX_PRIMARY_PROXY_USER": "backup"})


def test_a_region_that_says_nothing_uses_the_machines_proxy(bucket: Bucket) -> None:
    found = reached(region(), bucket, MACHINES)

    assert found.network.proxies()["https"] == "http://proxy.internal:3128"
    assert reached(region(), bucket, {**MACHINES, "NO_PROXY": ".amazonaws.com"}) == bucket


def test_a_private_endpoint_is_never_reached_by_the_machines_proxy(bucket: Bucket) -> None:
    found = reached(region("https://127.0.0.1:9000"), bucket, MACHINES)

    assert found.network.proxies() == {}


def test_a_proxy_to_a_private_endpoint_is_private_too(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch)
    found = reached(region("https://10.0.0.5", PROXY), bucket, {})
    assert found.network.proxies()["https"] == PROXY

    with pytest.raises(ConfigError, match=r"its proxy 8\.8\.8\.8 leads to .* a public address"):
        reached(region("https://10.0.0.5", "http://8.8.8.8:3128"), bucket, {})
    with pytest.raises(ConfigError, match="its private endpoint 8"):
        reached(region("https://8.8.8.8", PROXY), bucket, {})


def test_the_proxy_may_know_names_that_this_machine_does_not(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = "https://store.invalid"
    answering(monkeypatch)

    assert reached(region(private, PROXY), bucket, {}).server == private
    with pytest.raises(StoreUnavailable, match=r"its private endpoint store\.invalid is not found"):
        reached(region(private), bucket, {})


def test_a_bundle_is_the_regions_else_the_machines(bucket: Bucket, tmp_path: Path) -> None:
    there = str(Authority(tmp_path, "bank").bundle)
    env = {"AWS_CA_BUNDLE": str(tmp_path / "none.pem")}

    assert reached(region(bundle=there), bucket, env).network.ca_bundle == there
    assert reached(region(), bucket, {"SSL_CERT_FILE": there}).network.ca_bundle == there
    assert reached(region(), bucket, {"AWS_CA_BUNDLE": ""}).network.ca_bundle is None
    with pytest.raises(ConfigError, match=r"AWS_CA_BUNDLE names .*none\.pem: No such file"):
        reached(region(), bucket, env)
    with pytest.raises(ConfigError, match=r"region primary: ca_bundle names .*none\.pem"):
        reached(region(bundle=str(tmp_path / "none.pem")), bucket, {})
