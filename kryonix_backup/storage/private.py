"""The way to a region's server that touches no public network."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import replace
from urllib.parse import urlsplit

from kryonix_backup.errors import ConfigError, InvalidUrl, StoreUnavailable
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.location import Bucket


def reached(region: RegionSettings, bucket: Bucket) -> Bucket:
    """
    The bucket as it is reached: at the region's private endpoint, where it has one.

    Raises InvalidUrl where that is no endpoint, ConfigError where its name leads to a public
    address, and StoreUnavailable where it leads nowhere.
    """
    endpoint = region.private_endpoint
    if endpoint is None:
        return bucket
    try:
        parts = urlsplit(endpoint)
        host, port, scheme = parts.hostname, parts.port, parts.scheme
    except ValueError as error:
        raise InvalidUrl(f"region {region.name}: its private endpoint is not a URL") from error
    clean = f"{scheme}://{parts.netloc}" == endpoint.rstrip("/") and "@" not in parts.netloc
    if scheme not in ("http", "https") or not host or not clean:
        raise InvalidUrl(
            f"region {region.name}: its private endpoint is not like https://host:port",
            "Write the server's address alone, without a path and without credentials.",
        )
    for address in _addresses(region, host, port or {"http": 80, "https": 443}[scheme]):
        if address.is_global or address.is_multicast:
            raise ConfigError(
                f"region {region.name}: its private endpoint {host} leads to {address}, which is a"
                " public address",
                "Use the endpoint's name inside the private network, and that network's resolver.",
            )
    return replace(bucket, endpoint=endpoint.rstrip("/"), path_style=True)


def _addresses(
    region: RegionSettings, host: str, port: int
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StoreUnavailable(
            f"region {region.name}: its private endpoint {host} is not found: {error.strerror}"
        ) from error
    return [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in found]
