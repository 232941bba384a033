"""Whether only approved algorithms by a validated provider can be had here."""

from __future__ import annotations

from cryptography.hazmat.backends.openssl import backend

from kryonix_backup.errors import KeyRefused
from kryonix_backup.settings import TenantSettings


def check_fips(settings: TenantSettings) -> None:
    """
    Raise KeyRefused for ``fips: true``: what it promises cannot be kept, and is never ignored.

    Chunks are named by keyed BLAKE3, which is not approved, whatever the provider of the ciphers.
    """
    if not settings.keys.fips:
        return
    enabled = "is" if backend._fips_enabled else "is not"
    raise KeyRefused(
        f"tenant {settings.id} asks for FIPS, which this release does not offer: OpenSSL {enabled}"
        " in FIPS mode, no certificate of a validated provider is recorded, and chunks are named by"
        " BLAKE3",
        "Take 'fips: true' out of the tenant's keys, or wait for a release that names chunks by"
        " HMAC-SHA-256 on a validated provider.",
    )
