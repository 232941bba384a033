"""From a region's settings to its store, stacked: the one place that knows every adapter."""

from __future__ import annotations

from collections.abc import Mapping

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import ConfigError, SecretMissing
from kryonix_backup.settings import RegionSettings, Secret
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.storage.location import Directory, parse_location
from kryonix_backup.storage.retrying import RetryingStore
from kryonix_backup.storage.s3_control import S3Credentials
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.storage.throttling import Throttle, ThrottledStore

_KEY, _SECRET, _TOKEN = "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"


def open_store(
    region: RegionSettings,
    env: Mapping[str, str],
    *,
    clock: Clock | None = None,
    throttle: Throttle | None = None,
) -> ObjectStore:
    """
    The store at a region's address, which tries again what fails in passing.

    With a ``throttle`` it takes no more than that allows, what is tried again included. Nothing is
    asked of it yet. S3 credentials are the region's own, else those of
    ``KRYONIX_{REGION}_ACCESS_KEY_ID``, ``…_SECRET_ACCESS_KEY`` and ``…_SESSION_TOKEN``, else those
    of ``AWS_…``; a private authority's certificates are in the file that ``AWS_CA_BUNDLE`` names.
    Raises InvalidUrl, SecretMissing and ConfigError.
    """
    location = parse_location(region.url)
    if isinstance(location, Directory):
        inner: ObjectStore = FilesystemStore(location.path)
    else:
        from kryonix_backup.storage.s3 import S3Store

        bundle = env.get("AWS_CA_BUNDLE") or None
        try:
            inner = S3Store(location, s3_credentials(region, env), ca_bundle=bundle)
        except OSError as error:
            raise ConfigError(f"AWS_CA_BUNDLE names {bundle}: {error.strerror}") from error
    if throttle is not None:
        inner = ThrottledStore(inner, throttle)
    return RetryingStore(inner, clock or SystemClock())


def s3_credentials(region: RegionSettings, env: Mapping[str, str]) -> S3Credentials:
    """The key pair for a region; raises SecretMissing where there is none, or half of one."""
    if region.access_key_id and region.secret_access_key:
        return S3Credentials(region.access_key_id, region.secret_access_key)
    own = f"KRYONIX_{region.name.upper().replace('-', '_')}_"
    for prefix in (own, "AWS_"):
        key, secret, token = (env.get(prefix + name) for name in (_KEY, _SECRET, _TOKEN))
        if key and secret:
            return S3Credentials(key, Secret(secret), Secret(token) if token else None)
        if key or secret:
            missing = prefix + (_SECRET if key else _KEY)
            raise SecretMissing(f"region {region.name}: {missing} is not set", _hint(own))
    raise SecretMissing(f"region {region.name} has no S3 credentials", _hint(own))


def _hint(own: str) -> str:
    return f"Set {own}{_KEY} and {own}{_SECRET}, or AWS_{_KEY} and AWS_{_SECRET}."
