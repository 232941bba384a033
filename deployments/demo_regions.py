"""Where the demo's tenant is kept: three directories, or a bucket in each of three S3 servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kryonix_backup.errors import UsageError
from kryonix_backup.testing.s3_servers import S3Server, start_seaweedfs

NAMES = ("primary", "secondary", "archive")


@dataclass(frozen=True, slots=True)
class Regions:
    """
    Addresses by region name, and the environment that holds their credentials.

    ``servers`` run until `stop`; their process groups are what a person would have to end.
    """

    urls: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    servers: tuple[S3Server, ...] = ()

    def stop(self) -> None:
        """End the servers; a second call does nothing."""
        for server in self.servers:
            server.stop()


Opened = Callable[[Path, str], Regions]


def directories(root: Path, tenant: str) -> Regions:
    """A directory for each region; made by whoever uses it first."""
    return Regions({name: f"file://{root / name / tenant}" for name in NAMES})


def s3_servers(root: Path, tenant: str) -> Regions:
    """A server for each region, with one bucket and credentials for that bucket alone."""
    bucket = f"tenant-{tenant}-backup"
    urls: dict[str, str] = {}
    environment: dict[str, str] = {}
    servers: list[S3Server] = []
    try:
        for name in NAMES:
            server = start_seaweedfs(root / name, [bucket])
            servers.append(server)
            urls[name] = server.url(bucket)
            pair = server.buckets[bucket]
            environment[f"KRYONIX_{name.upper()}_ACCESS_KEY_ID"] = pair.access_key_id
            environment[f"KRYONIX_{name.upper()}_SECRET_ACCESS_KEY"] = pair.secret_access_key
    except FileNotFoundError as error:
        raise UsageError(
            "S3 servers for the demo are not installed",
            "Run ./script/setup --dev, or leave --s3 out.",
        ) from error
    except BaseException:
        Regions(urls, environment, tuple(servers)).stop()
        raise
    return Regions(urls, environment, tuple(servers))
