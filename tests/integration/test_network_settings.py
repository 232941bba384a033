"""
What a region says of its network holds for every byte of both clients, and of the KMS.

The proxy and TLS are real; the KMS is moto's, a mock, because there is no real one to run.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import traceback
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from kryonix_backup.crypto.keystore import ManagedKeyStore
from kryonix_backup.crypto.stores.registry import open_key_store, probe_key_store
from kryonix_backup.errors import (
    KeyStoreUnavailable,
    KeyStoreUnusable,
    KryonixError,
    StoreDenied,
    StoreUnavailable,
    StoreUntrusted,
)
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RegionSettings, RootKey
from kryonix_backup.storage.bucket_isolation import BucketIsolation
from kryonix_backup.storage.credentials import S3Credentials
from kryonix_backup.storage.location import Bucket, parse_location
from kryonix_backup.storage.private import reached
from kryonix_backup.storage.registry import open_store, s3_credentials
from kryonix_backup.storage.residency import ANYWHERE
from kryonix_backup.storage.s3 import S3Store
from kryonix_backup.storage.store import WHOLE_BYTES
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.key_stores import MotoKms
from kryonix_backup.testing.s3_servers import S3Server
from tests.crypto.stores.contract import new_tenant
from tests.services.network import (
    BY_PROXY,
    DIRECT,
    Authority,
    ForwardProxy,
    Relay,
    authority,
    closed_proxy,
    forward_proxy,
    start_proxy,
)
from tests.services.s3 import TENANT_A, new_prefix, seaweedfs
from tests.services.softhsm import kms

__all__ = ["authority", "closed_proxy", "forward_proxy", "kms", "seaweedfs"]

pytestmark = pytest.mark.service

NOWHERE = "http://127.0.0.1:1"
# What other programs of a machine may be told, and what these libraries know beside it.
AMBIENT = {
    "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "ALL_PROXY": NOWHERE, "http_proxy": NOWHERE,
    "https_proxy": NOWHERE, "AWS_PROXY_URL": NOWHERE, "AWS_PROXY_EXCLUDES": "*",
    "AWS_ENDPOINT_URL": NOWHERE, "AWS_ENDPOINT_URL_S3": NOWHERE, "AWS_ENDPOINT_URL_IAM": NOWHERE,
    "AWS_ENDPOINT": NOWHERE, "AWS_ALLOW_INVALID_CERTIFICATES": "true", "AWS_SKIP_SIGNATURE": "true",
    "AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true",
    "AWS_SESSION_TOKEN": "of somebody else", "AWS_S3_EXPRESS": "true",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_REQUEST_PAYER": "requester",
    "REQUESTS_CA_BUNDLE": "/nowhere", "CURL_CA_BUNDLE": "/nowhere",
}  # fmt: skip


TAKES = 'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
REFUSES = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
REDIRECTS = (
    "x-amz-bucket-region: eu-west-1\r\nContent-Length: 45\r\nConnection: close\r\n\r\n"
    "<Error><Code>PermanentRedirect</Code></Error>"
)


class Listener:
    """A server that answers everything alike, and keeps what it was sent."""

    def __init__(self, host: str, answer: str) -> None:
        self.heads: list[bytes] = []
        self._answer = answer.encode()
        self._socket = socket.create_server((host, 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.2)
                head = b""
                with suppress(TimeoutError):
                    while piece := connection.recv(1 << 16):
                        head += piece
                self.heads.append(head)
                with suppress(OSError):
                    connection.sendall(self._answer)


@pytest.fixture(params=["http", "https"])
def relay(
    request: pytest.FixtureRequest, seaweedfs: S3Server, authority: Authority
) -> Iterator[Relay]:
    """The server, once in clear and once by TLS, behind what writes down who comes."""
    context = authority.server("127.0.0.1") if request.param == "https" else None
    with Relay(seaweedfs.endpoint, context) as before:
        yield before


@pytest.fixture
def tls(seaweedfs: S3Server, authority: Authority) -> Iterator[Relay]:
    with Relay(seaweedfs.endpoint, authority.server("127.0.0.1")) as before:
        yield before


@pytest.fixture
def ambient(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """This process' environment, full of what must not count."""
    for name, value in AMBIENT.items():
        monkeypatch.setenv(name, value)
    return os.environ


def region_at(server: S3Server, endpoint: str, **network: Any) -> RegionSettings:
    """The tenant's bucket behind that endpoint, under a prefix of its own."""
    region = server.region(TENANT_A)
    place = f"s3://{TENANT_A}/{new_prefix()}?region=us-east-1&timeout=20&endpoint={endpoint}"
    return replace(region, url=place, **network)


def bare(region: RegionSettings, env: Mapping[str, str]) -> S3Store:
    """The adapter alone, which tries nothing again."""
    place = parse_location(region.url)
    assert isinstance(place, Bucket)
    return S3Store(reached(region, place, env), s3_credentials(region, {}, None))


CLIENTS: dict[str, Callable[[S3Store], object]] = {
    "boto3": lambda store: store._control.put_parts(f"{store._root}made-by-boto3", b"x", "a probe"),
    "obstore": lambda store: store.put("made-by-obstore", b"x"),
}
each_client = pytest.mark.parametrize("client", list(CLIENTS))


def again(attempt: Callable[[], object]) -> None:
    """Until it goes: tinyproxy hangs up after each request in clear, and boto3 may not know yet."""
    for _ in range(5):
        with suppress(StoreUnavailable):
            attempt()
            return
    attempt()


def use_everything(region: RegionSettings, env: Mapping[str, str]) -> None:
    """Every call that a repository makes; what is large goes in parts, by boto3."""
    store = open_store(region, env, ANYWHERE)
    large = os.urandom(1 << 20) * (WHOLE_BYTES // (1 << 20) + 1)
    store.create()
    store.put("small", b"a body")
    store.put("large", large)
    store.replace("small", b"another body")
    assert store.get("small") == b"another body"
    assert store.get_range("large", 1 << 20, 100) == large[1 << 20 : (1 << 20) + 100]
    assert store.size("large") == len(large)
    assert sorted(info.name for info in store.list("")) == ["large", "small"]
    store.delete("large")


# ------------------------------------------------------------------ the proxy


def test_every_connection_of_both_clients_comes_by_the_proxy(
    relay: Relay,
    seaweedfs: S3Server,
    forward_proxy: ForwardProxy,
    authority: Authority,
    ambient: Mapping[str, str],
) -> None:
    network = {"proxy": forward_proxy.url, "ca_bundle": str(authority.bundle)}

    use_everything(region_at(seaweedfs, relay.endpoint, **network), {**ambient, "NO_PROXY": "*"})

    assert relay.received > WHOLE_BYTES
    assert set(relay.peers) == {BY_PROXY}
    sent = [line for line in forward_proxy.requests() if f"127.0.0.1:{relay.port}" in line]
    assert len(sent) >= len(relay.peers)
    assert relay.context is None or all(line.startswith("CONNECT ") for line in sent)


@each_client
def test_with_the_proxy_gone_nothing_reaches_the_server(
    relay: Relay, seaweedfs: S3Server, authority: Authority, tmp_path: Path, client: str
) -> None:
    with start_proxy(tmp_path) as proxy:
        network = {"proxy": proxy.url, "ca_bundle": str(authority.bundle)}
        store = bare(region_at(seaweedfs, relay.endpoint, **network), {})
        again(lambda: CLIENTS[client](store))
        assert set(relay.peers) == {BY_PROXY}
        relay.forget()
        proxy.stop()
        other = bare(region_at(seaweedfs, relay.endpoint, **network), {})

        for each in (store, other):
            with pytest.raises(StoreUnavailable, match=f"by way of {proxy.url}") as raised:
                CLIENTS[client](each)
            assert raised.value.exit_code == 31

    assert relay.peers == []


@each_client
def test_a_proxy_that_wants_a_login_is_given_it_and_nobody_else_is_told(
    relay: Relay,
    seaweedfs: S3Server,
    closed_proxy: ForwardProxy,
    authority: Authority,
    client: str,
) -> None:
    assert closed_proxy.login
    user, password = closed_proxy.login
    network = {"proxy": closed_proxy.url, "ca_bundle": str(authority.bundle)}
    region = region_at(seaweedfs, relay.endpoint, **network)
    env = {"KRYONIX_PRIMARY_PROXY_USER": user, "KRYONIX_PRIMARY_PROXY_PASSWORD": password}

    for wrong in ({}, {**env, "KRYONIX_PRIMARY_PROXY_PASSWORD": "hunter2"}):
        # A proxy that hangs up before it has read the body leaves no more to be known.
        with pytest.raises((StoreDenied, StoreUnavailable), match=closed_proxy.url) as raised:
            CLIENTS[client](bare(region, wrong))
        said = "".join(traceback.format_exception(raised.value))
        assert "hunter2" not in said
    assert relay.peers == []

    again(lambda: CLIENTS[client](bare(region, env)))

    assert set(relay.peers) == {BY_PROXY}


@each_client
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_login_of_any_characters_arrives_and_its_refusal_says_what_to_set(
    seaweedfs: S3Server, client: str, scheme: str
) -> None:
    """A real proxy takes only some characters."""
    user, password = "back up", "p@ss:w/or%41d"
    env = {"KRYONIX_PRIMARY_PROXY_USER": user, "KRYONIX_PRIMARY_PROXY_PASSWORD": password}
    with Listener("127.0.0.1", REFUSES) as proxy:
        region = region_at(seaweedfs, f"{scheme}://127.0.0.1:1", proxy=proxy.endpoint)

        with pytest.raises(StoreDenied, match="the proxy refuses this login") as raised:
            CLIENTS[client](bare(region, env))

        assert "KRYONIX_{REGION}_PROXY_USER" in raised.value.hint
        assert password not in "".join(traceback.format_exception(raised.value))
        words = b64encode(f"{user}:{password}".encode())
        assert b"proxy-authorization: basic " + words.lower() in proxy.heads[0].lower()


def test_a_bucket_is_made_ones_own_by_the_proxy(
    relay: Relay, seaweedfs: S3Server, forward_proxy: ForwardProxy, authority: Authority
) -> None:
    """The operator's calls, to IAM among them, and those of the trial."""
    network = {"proxy": forward_proxy.url, "ca_bundle": str(authority.bundle)}
    name = new_prefix()
    region = replace(
        region_at(seaweedfs, relay.endpoint, **network),
        url=f"s3://{name}?region=us-east-1&endpoint={relay.endpoint}",
        access_key_id=None,
        secret_access_key=None,
    )
    place = parse_location(region.url)
    assert isinstance(place, Bucket)
    root = seaweedfs.region("any", credentials=seaweedfs.root)
    assert root.access_key_id
    assert root.secret_access_key
    operator = S3Credentials(root.access_key_id, root.secret_access_key)
    env = {"KRYONIX_HOME": str(Path(authority.bundle).parent / name)}

    done = BucketIsolation(TenantId("acme"), region, place, operator, env).isolate(FixedClock())

    assert set(done.made) == {"bucket", "user", "policy", "key"}
    assert set(relay.peers) == {BY_PROXY}


# ------------------------------------------------------------------ what the environment says


def test_a_region_that_says_nothing_goes_by_the_machines_proxy(
    tls: Relay, seaweedfs: S3Server, forward_proxy: ForwardProxy, authority: Authority
) -> None:
    env = {"HTTPS_PROXY": forward_proxy.url, "AWS_CA_BUNDLE": str(authority.bundle)}

    use_everything(region_at(seaweedfs, tls.endpoint), env)
    assert set(tls.peers) == {BY_PROXY}

    tls.forget()
    use_everything(region_at(seaweedfs, tls.endpoint), {**env, "NO_PROXY": "127.0.0.0/8"})
    assert set(tls.peers) == {DIRECT}


def test_what_the_libraries_find_in_the_environment_is_not_asked(
    tls: Relay, seaweedfs: S3Server, authority: Authority, ambient: Mapping[str, str]
) -> None:
    """Not even where the region says nothing: both would find other things there."""
    region = region_at(seaweedfs, tls.endpoint)

    use_everything(region, {"AWS_CA_BUNDLE": str(authority.bundle)})

    assert set(tls.peers) == {DIRECT}


def test_a_private_endpoint_is_reached_directly(
    tls: Relay, seaweedfs: S3Server, authority: Authority, ambient: Mapping[str, str]
) -> None:
    network = {"private_endpoint": tls.endpoint, "ca_bundle": str(authority.bundle)}

    use_everything(region_at(seaweedfs, "https://public.invalid", **network), ambient)

    assert set(tls.peers) == {DIRECT}


# ------------------------------------------------------------------ certificates


@each_client
def test_an_own_authority_is_believed_where_its_bundle_is_named(
    tls: Relay, seaweedfs: S3Server, authority: Authority, tmp_path: Path, client: str
) -> None:
    two = tmp_path / "two.pem"
    other = Authority(tmp_path, "other")
    two.write_bytes(other.bundle.read_bytes() + authority.bundle.read_bytes())

    for bundle in (authority.bundle, two):
        region = region_at(seaweedfs, tls.endpoint, ca_bundle=str(bundle))
        CLIENTS[client](bare(region, {"AWS_CA_BUNDLE": str(other.bundle)}))

    assert set(tls.peers) == {DIRECT}


@each_client
@pytest.mark.parametrize("named", ["nothing", "another authority"])
def test_nobody_else_is_believed(
    tls: Relay,
    seaweedfs: S3Server,
    authority: Authority,
    tmp_path: Path,
    ambient: Mapping[str, str],
    client: str,
    named: str,
) -> None:
    network = {"ca_bundle": str(Authority(tmp_path, "other").bundle)}
    region = region_at(seaweedfs, tls.endpoint, **({} if named == "nothing" else network))

    with pytest.raises(StoreUntrusted, match="the server's certificate is not believed") as raised:
        CLIENTS[client](bare(region, {}))

    assert raised.value.exit_code == 47
    assert tls.endpoint in raised.value.message
    assert "ca_bundle" in raised.value.hint
    assert tls.peers == []


@each_client
def test_a_certificate_for_another_name_is_not_believed(
    seaweedfs: S3Server, authority: Authority, client: str
) -> None:
    with Relay(seaweedfs.endpoint, authority.server("s3.example.com")) as relay:
        region = region_at(seaweedfs, relay.endpoint, ca_bundle=str(authority.bundle))
        with pytest.raises(StoreUntrusted):
            CLIENTS[client](bare(region, {}))

        assert relay.peers == []


@each_client
def test_nothing_older_than_tls_1_2_is_spoken(
    seaweedfs: S3Server, authority: Authority, client: str
) -> None:
    context = authority.server("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Relay(seaweedfs.endpoint, context) as relay:
        region = region_at(seaweedfs, relay.endpoint, ca_bundle=str(authority.bundle))
        with pytest.raises(StoreUnavailable):
            CLIENTS[client](bare(region, {}))

        assert relay.peers == []


# ------------------------------------------------------------------ redirects


@pytest.mark.parametrize("call", [*CLIENTS, "get", "get_range", "size", "list", "delete"])
@pytest.mark.parametrize("status", [301, 307])
def test_a_server_cannot_send_us_to_another_host(
    seaweedfs: S3Server, call: str, status: int
) -> None:
    """By itself obstore follows for whatever has no body."""
    calls: dict[str, Callable[[S3Store], object]] = {
        **CLIENTS,
        "get": lambda store: store.get("a"),
        "get_range": lambda store: store.get_range("a", 0, 1),
        "size": lambda store: store.size("a"),
        "list": lambda store: list(store.list("")),
        "delete": lambda store: store.delete("a"),
    }
    with Listener("127.0.0.3", TAKES) as there:
        away = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {there.endpoint}/x\r\n" + REDIRECTS
        with Listener("127.0.0.1", away) as here:
            with pytest.raises(KryonixError):
                calls[call](bare(region_at(seaweedfs, here.endpoint), {}))

            assert here.heads
        assert there.heads == []


# ------------------------------------------------------------------ a KMS


def _kms_root(kms: MotoKms, tenant: TenantId, endpoint: str, **env: str) -> RootKey:
    url = f"kms://?region=us-east-1&endpoint={endpoint}"
    names = {name: value for name, value in kms.environment().items() if "STORE" not in name}
    return RootKey.from_environment({**names, **env}, tenant, url)


def test_a_kms_is_reached_by_its_own_proxy_and_believed_by_its_own_bundle(
    kms: MotoKms,
    forward_proxy: ForwardProxy,
    authority: Authority,
    ambient: Mapping[str, str],
    tmp_path: Path,
) -> None:
    tenant = new_tenant()
    network = {"KRYONIX_KMS_PROXY": forward_proxy.url}
    bundle = {"KRYONIX_KMS_CA_BUNDLE": str(authority.bundle)}
    with Relay(kms.server.endpoint, authority.server("127.0.0.1")) as relay:
        root = _kms_root(kms, tenant, relay.endpoint, **network, **bundle)
        store = open_key_store(root, tenant)
        assert isinstance(store, ManagedKeyStore)
        store.renew()
        assert "wraps and opens" in probe_key_store(root, tenant)
        assert set(relay.peers) == {BY_PROXY}

        relay.forget()
        bundle = {"KRYONIX_KMS_CA_BUNDLE": str(Authority(tmp_path, "other").bundle)}
        stranger = _kms_root(kms, tenant, relay.endpoint, **network, **bundle)
        with pytest.raises(KeyStoreUnusable, match="certificate is not believed") as raised:
            probe_key_store(stranger, tenant)
        assert "KRYONIX_KMS_CA_BUNDLE" in raised.value.hint
        assert relay.peers == []


def test_with_its_proxy_gone_nothing_reaches_a_kms(kms: MotoKms, tmp_path: Path) -> None:
    tenant = new_tenant()
    with Relay(kms.server.endpoint) as relay, start_proxy(tmp_path) as proxy:
        proxy.stop()
        root = _kms_root(kms, tenant, relay.endpoint, KRYONIX_KMS_PROXY=proxy.url)

        with pytest.raises(KeyStoreUnavailable):
            probe_key_store(root, tenant)
        assert relay.peers == []
