"""
The key pairs that this machine keeps: one file per tenant and region, for its owner alone.

``$KRYONIX_HOME/credentials/TENANT/REGION`` is JSON: the pair, and the bucket and server that it is
for. It is never sent to another one.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kryonix_backup.durable import write_whole
from kryonix_backup.errors import ConfigError
from kryonix_backup.model import RegionName, TenantId, check_name, tenant_id
from kryonix_backup.settings import Secret, home_directory
from kryonix_backup.storage.location import Bucket

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class S3Credentials(NamedTuple):
    """A key pair, and the token that comes with a temporary one."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None


class KeptCredentials:
    """The pairs that are kept for one tenant's regions; what is kept is whole and durable."""

    def __init__(self, env: Mapping[str, str], tenant: TenantId) -> None:
        self._folder = home_directory(env) / "credentials" / tenant_id(tenant)

    def load(self, region: RegionName, bucket: Bucket) -> S3Credentials | None:
        """
        The pair for that bucket; None where none is kept, or one for another bucket.

        Raises ConfigError where others could have read or changed the file.
        """
        path = self._path(region)
        try:
            descriptor = os.open(path, _READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, error.strerror) from error
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
                raise _unusable(path, "others than its owner can get at it")
            body = file.read()
        try:
            plain = json.loads(body)
            pair = S3Credentials(
                str(plain["access_key_id"]), Secret(str(plain["secret_access_key"]))
            )
            ours = (plain["bucket"], plain["endpoint"]) == (bucket.name, bucket.endpoint)
        except (ValueError, KeyError, TypeError) as error:
            raise _unusable(path, "it does not hold a key pair") from error
        return pair if ours else None

    def keep(self, region: RegionName, bucket: Bucket, pair: S3Credentials) -> None:
        """Keep a pair in place of the one before."""
        path = self._path(region)
        body = {
            "bucket": bucket.name,
            "endpoint": bucket.endpoint,
            "access_key_id": pair.access_key_id,
            "secret_access_key": pair.secret_access_key.reveal().decode(),
        }
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self._folder, self._folder.parent):
                folder.chmod(0o700)  # whatever the umask is
            write_whole(path, json.dumps(body).encode())
        except OSError as error:
            raise _unusable(path, error.strerror) from error

    def forget(self, region: RegionName) -> None:
        """Keep none any more."""
        path = self._path(region)
        try:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # other regions' are still there
                self._folder.rmdir()
        except OSError as error:
            raise _unusable(path, error.strerror) from error

    def _path(self, region: RegionName) -> Path:
        return self._folder / check_name(region, "region")


def _unusable(path: Path, why: str | None) -> ConfigError:
    return ConfigError(
        f"the credentials in {path} cannot be used: {why}",
        "Let it be a file of the backup's user alone (mode 0600), or make new ones with"
        " 'kryonix tenant isolate ID'.",
    )
