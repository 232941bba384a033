"""The way to a region's server: by its proxy, by its private endpoint, and believing whom."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from kryonix_backup.errors import ConfigError, InvalidUrl, StoreUnavailable
from kryonix_backup.network import (
    Network,
    Proxy,
    check_bundle,
    proxy_at,
    proxy_of_machine,
    with_login,
)
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.location import Bucket, server_url

_PORTS = {"http": 80, "https": 443}


def reached(region: RegionSettings, bucket: Bucket, env: Mapping[str, str]) -> Bucket:
    """
    The bucket as it is reached: at the region's private endpoint, by its proxy, where it has them.

    Where it has neither the machine's proxy is used (``HTTPS_PROXY``, ``NO_PROXY`` and so on), and
    without a bundle of its own that of ``AWS_CA_BUNDLE`` or ``SSL_CERT_FILE``. Raises InvalidUrl
    where an address is none, ConfigError where a private one is public or a bundle is none,
    SecretMissing for half of a proxy's login, and StoreUnavailable where a private name leads
    nowhere.
    """
    found = _at_private_endpoint(region, bucket)
    proxy = _proxy(region, found, env)
    network = replace(found.network, proxy=proxy, ca_bundle=_bundle(region, env))
    return replace(found, network=network)


def _at_private_endpoint(region: RegionSettings, bucket: Bucket) -> Bucket:
    if region.private_endpoint is None:
        return bucket
    endpoint = server_url(region.private_endpoint)
    if endpoint is None or urlsplit(endpoint).path:
        raise InvalidUrl(
            f"region {region.name}: its private endpoint is not like https://host:port",
            "Write the server's address alone, without a path and without credentials.",
        )
    try:
        _refuse_public(f"region {region.name}: its private endpoint", endpoint)
    except StoreUnavailable:
        if region.proxy is None:  # else it is the proxy that looks the name up
            raise
    return replace(bucket, path_style=True, network=Network(endpoint=endpoint))


def _proxy(region: RegionSettings, bucket: Bucket, env: Mapping[str, str]) -> Proxy | None:
    what = f"region {region.name}"
    if region.proxy is not None:
        proxy = proxy_at(region.proxy, what)
        if region.private_endpoint is not None:
            _refuse_public(f"{what}: its proxy", proxy.url)
        return with_login(proxy, env, region.variables, what)
    if region.private_endpoint is not None:
        return None  # what every program of the machine uses is no private network
    return proxy_of_machine(env, bucket.host_url)


def _bundle(region: RegionSettings, env: Mapping[str, str]) -> str | None:
    said = [(f"region {region.name}: ca_bundle", region.ca_bundle)]
    said += [(name, env.get(name)) for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE")]
    what, path = next((row for row in said if row[1]), ("", None))
    if path is not None:
        check_bundle(path, what)
    return path


def _refuse_public(what: str, url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    for address in _addresses(what, host, parts.port or _PORTS[parts.scheme]):
        if address.is_global or address.is_multicast:
            raise ConfigError(
                f"{what} {host} leads to {address}, which is a public address",
                "Use its name inside the private network, and that network's resolver.",
            )


def _addresses(
    what: str, host: str, port: int
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StoreUnavailable(f"{what} {host} is not found: {error.strerror}") from error
    return [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in found]
