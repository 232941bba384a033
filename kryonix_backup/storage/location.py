"""Where a region is: its URL taken apart and checked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from kryonix_backup.addresses import holds_secret
from kryonix_backup.errors import InvalidUrl
from kryonix_backup.network import Network, is_server

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61}[a-z0-9])", re.ASCII)
_PREFIX = re.compile(r"[a-z0-9_-][a-z0-9._-]*(?:/[a-z0-9_-][a-z0-9._-]*)*", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)
_SECRET = re.compile(r"secret|token|password|passwd|credential|access[-_]?key|signature", re.I)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DEFAULT_REGION = "us-east-1"
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of this machine, absolute."""

    path: Path

    @property
    def address(self) -> str:
        """The directory as a URL."""
        return f"file://{self.path}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """
    A bucket, or a prefix in one (empty, or without slashes at its ends).

    ``endpoint`` is the server's URL, without the bucket; ``path_style`` is true where the bucket is
    in the path and not in the host name. ``timeout`` bounds one request, in seconds. ``network`` is
    the way there, of which `address` says nothing: what is known of a place does not change by it.
    """

    name: str
    prefix: str
    endpoint: str
    region: str
    path_style: bool
    timeout: float
    network: Network = field(default_factory=Network)

    @property
    def address(self) -> str:
        """The bucket as a URL for messages."""
        path = f"{self.name}/{self.prefix}" if self.prefix else self.name
        return f"s3://{path} at {self.endpoint}"

    @property
    def way(self) -> str:
        """The address and the way to it, for messages of what failed."""
        return self.address + self.network.way

    @property
    def server(self) -> str:
        """The URL of the server that is asked: the endpoint, or the private one in its place."""
        return self.network.endpoint or self.endpoint

    @property
    def host_url(self) -> str:
        """The URL of the host that knows the bucket: in path style the server, else its own."""
        if self.path_style:
            return self.server
        scheme, _, host = self.endpoint.partition("://")
        return f"{scheme}://{self.name}.{host}"


def parse_location(url: str) -> Directory | Bucket:
    """
    The place that a region's URL names.

    ``file:///dir``, or ``s3://bucket[/prefix][?endpoint=…&region=…&path_style=…&timeout=…]``;
    without an endpoint it is Amazon's. Path style is the default where an endpoint is given.
    Raises InvalidUrl, whose message repeats no part of a URL that seems to hold a secret.
    """
    if _CONTROL.search(url):  # some of them urlsplit drops, and another place is named
        raise InvalidUrl("a region's address holds a line break or another control character")
    if holds_secret(url):
        raise _with_credentials()
    try:
        parts = urlsplit(url)
        query = dict(
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        )
        inner = urlsplit(query.get("endpoint", ""))
        credentials = "@" in parts.netloc or "@" in inner.netloc
        port = inner.port
    except ValueError as error:
        raise InvalidUrl("a region's address is not a URL") from error
    if credentials or any(_SECRET.search(key) for key in query) or "X-Amz" in url:
        raise _with_credentials()
    if port == 0 or parts.fragment:
        raise InvalidUrl(f"{url!r} is not a region's address")
    if parts.scheme == "file":
        return _directory(url, parts.netloc, parts.path, query)
    if parts.scheme == "s3":
        return _bucket(url, parts.netloc, parts.path, query)
    raise InvalidUrl(f"{url!r} is neither a file:// nor an s3:// address")


def _with_credentials() -> InvalidUrl:
    return InvalidUrl(
        "a region's address holds credentials, which it must not",
        "Take them out of the URL and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
        " KRYONIX_{REGION}_ACCESS_KEY_ID and KRYONIX_{REGION}_SECRET_ACCESS_KEY.",
    )


def _directory(url: str, host: str, path: str, query: dict[str, str]) -> Directory:
    path = unquote(path, errors="surrogateescape")
    if host not in ("", "localhost") or query or not path.startswith("/") or "\0" in path:
        raise InvalidUrl(f"{url!r} is not like file:///dir")
    clean = os.path.normpath(path)
    if clean in ("/", "//"):
        raise InvalidUrl(f"{url!r} is the root of the file system")
    return Directory(Path(clean))


def _bucket(url: str, bucket: str, path: str, query: dict[str, str]) -> Bucket:
    unknown = sorted(set(query) - {"endpoint", "region", "path_style", "timeout"})
    if unknown:
        raise InvalidUrl(f"{url!r} has an unknown setting {unknown[0]!r}")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise InvalidUrl(f"{url!r} does not name a bucket")
    prefix = path.strip("/")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise InvalidUrl(f"{url!r} has a prefix that is not made of a-z, 0-9, '.', '_', '-', '/'")
    region = query.get("region", _DEFAULT_REGION)
    if not _REGION.fullmatch(region):
        raise InvalidUrl(f"{url!r} names no region after 'region='")
    endpoint = server_url(query.get("endpoint", f"https://s3.{region}.amazonaws.com"))
    if endpoint is None:
        raise InvalidUrl(f"{url!r} has no http:// or https:// address after 'endpoint='")
    style = query.get("path_style", "true" if "endpoint" in query else "false")
    if style not in ("true", "false"):
        raise InvalidUrl(f"{url!r} has neither true nor false after 'path_style='")
    return Bucket(bucket, prefix, endpoint, region, style == "true", _timeout(url, query))


def server_url(url: str) -> str | None:
    """The URL of a server in its one spelling; None where it is not one that all read alike."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = (parts.hostname or "").removesuffix(".")
    clean = parts.scheme in ("http", "https") and host and not parts.query + parts.fragment
    if not clean or not is_server(parts.netloc):
        return None
    place = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))


def _timeout(url: str, query: dict[str, str]) -> float:
    try:
        seconds = float(query.get("timeout", _TIMEOUT_SECONDS))
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise InvalidUrl(f"{url!r} has no seconds from 0.1 to 3600 after 'timeout='")
    return seconds
