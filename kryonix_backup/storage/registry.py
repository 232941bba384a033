"""From a region's settings to its store, stacked: the one place that knows every adapter."""

from __future__ import annotations

from collections.abc import Mapping

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import ConfigError, SecretMissing
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RegionSettings, Secret
from kryonix_backup.storage.credentials import KeptCredentials, S3Credentials
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.storage.location import Directory, parse_location
from kryonix_backup.storage.private import reached
from kryonix_backup.storage.residency import Residency, check_region
from kryonix_backup.storage.retrying import RetryingStore
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.storage.throttling import Throttle, ThrottledStore

_KEY, _SECRET, _TOKEN = "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"


def open_store(
    region: RegionSettings,
    env: Mapping[str, str],
    residency: Residency,
    *,
    clock: Clock | None = None,
    throttle: Throttle | None = None,
) -> ObjectStore:
    """
    The store at a region's address, which tries again what fails in passing.

    Nothing is asked of it yet. Every way to a tenant's data leads through here, so here its
    residency holds; with a ``throttle`` it takes no more than that allows, what is tried again
    included. The server is reached as the region says (`reached`). Raises ResidencyViolation,
    InvalidUrl, SecretMissing, ConfigError and StoreUnavailable.
    """
    location = parse_location(region.url)
    check_region(region, residency)
    if isinstance(location, Directory):
        _refuse_network(region)
        inner: ObjectStore = FilesystemStore(location.path)
    else:
        from kryonix_backup.storage.s3 import S3Store

        pair = s3_credentials(region, env, residency.tenant)
        inner = S3Store(reached(region, location, env), pair)
    if throttle is not None:
        inner = ThrottledStore(inner, throttle)
    return RetryingStore(inner, clock or SystemClock())


def _refuse_network(region: RegionSettings) -> None:
    if region.network:
        raise ConfigError(
            f"region {region.name} is a directory, and has {', '.join(region.network)}",
            "Leave it out: these are for a region in a bucket.",
        )


def s3_credentials(
    region: RegionSettings, env: Mapping[str, str], tenant: TenantId | None
) -> S3Credentials:
    """
    The key pair for a region.

    The region's own, else the one that is kept for this tenant and bucket, else that of
    ``KRYONIX_{REGION}_ACCESS_KEY_ID``, ``…_SECRET_ACCESS_KEY`` and ``…_SESSION_TOKEN``, else that
    of ``AWS_…``. Raises SecretMissing where there is none, or half of one.
    """
    if region.access_key_id and region.secret_access_key:
        return S3Credentials(region.access_key_id, region.secret_access_key)
    if tenant is not None and (kept := kept_credentials(region, env, tenant)) is not None:
        return kept
    own = region.variables
    for prefix in (own, "AWS_"):
        if (pair := _pair(region, env, prefix)) is not None:
            return pair
    raise SecretMissing(f"region {region.name} has no S3 credentials", _hint(own))


def kept_credentials(
    region: RegionSettings, env: Mapping[str, str], tenant: TenantId
) -> S3Credentials | None:
    """The key pair that this machine keeps for the tenant's bucket; raises ConfigError."""
    location = parse_location(region.url)
    if isinstance(location, Directory):
        return None
    return KeptCredentials(env, tenant).load(region.name, location)


def admin_credentials(region: RegionSettings, env: Mapping[str, str]) -> S3Credentials | None:
    """
    The operator's key pair, which may make buckets, users and policies; None where none is set.

    It is ``KRYONIX_{REGION}_ADMIN_ACCESS_KEY_ID`` and so on. Raises SecretMissing for half of one.
    """
    return _pair(region, env, f"{region.variables}ADMIN_")


def _pair(region: RegionSettings, env: Mapping[str, str], prefix: str) -> S3Credentials | None:
    key, secret, token = (env.get(prefix + name) for name in (_KEY, _SECRET, _TOKEN))
    if key and secret:
        return S3Credentials(key, Secret(secret), Secret(token) if token else None)
    if key or secret:
        missing = prefix + (_SECRET if key else _KEY)
        hint = _hint(prefix if prefix != "AWS_" else region.variables)
        raise SecretMissing(f"region {region.name}: {missing} is not set", hint)
    return None


def _hint(own: str) -> str:
    return f"Set {own}{_KEY} and {own}{_SECRET}, or AWS_{_KEY} and AWS_{_SECRET}."
