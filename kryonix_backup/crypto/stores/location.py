"""Where a tenant's master key is: a key store's URL taken apart and checked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from kryonix_backup.addresses import holds_secret
from kryonix_backup.errors import InvalidUrl
from kryonix_backup.model import TenantId

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)
_SECRET = re.compile(
    r"pin|secret|password|passwd|passphrase|credential|access[-_]?key|session|signature", re.I
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FORMS = (
    "Write it like pkcs11:///usr/lib/softhsm/libsofthsm2.so?token=LABEL[&label=NAME] or"
    " kms://[ALIAS]?region=us-east-1[&endpoint=https://host]."
)
_MOST_LABEL = 64
_MOST_TOKEN = 32  # what a token has room for
_MOST_ALIAS = 200


@dataclass(frozen=True, slots=True)
class HsmLocation:
    """Keys labelled ``label/v1`` and so on, in the token of that label, behind a PKCS#11 module."""

    module: str
    token: str
    label: str

    @property
    def address(self) -> str:
        """The master as a message names it."""
        return f"{self.label} in token {self.token} of {self.module}"


@dataclass(frozen=True, slots=True)
class KmsLocation:
    """Keys with the aliases ``alias/{alias}/v1`` and so on; no endpoint means Amazon's."""

    alias: str
    region: str
    endpoint: str | None

    @property
    def address(self) -> str:
        """The master as a message names it."""
        return f"{self.alias} in KMS at {self.endpoint or self.region}"


def parse_key_store(url: str, tenant: TenantId) -> HsmLocation | KmsLocation:
    """
    The place that a key store's URL names; without a label or an alias it is ``kryonix-{tenant}``.

    Raises InvalidUrl, whose message repeats no part of a URL that seems to hold a secret.
    """
    if _CONTROL.search(url):
        raise InvalidUrl("a key store's address holds a control character", _FORMS)
    if holds_secret(url):
        raise _with_credentials()
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        query = dict(pairs)
        inner = urlsplit(query.get("endpoint", ""))
        port = inner.port
    except ValueError as error:
        raise InvalidUrl("a key store's address is not a URL", _FORMS) from error
    if "@" in parts.netloc + inner.netloc or any(_SECRET.search(key) for key, _ in pairs):
        raise _with_credentials()
    if port == 0 or parts.fragment or len(query) < len(pairs):
        raise InvalidUrl(f"{url!r} is not a key store's address", _FORMS)
    if parts.scheme == "pkcs11":
        return _hsm(url, parts, query, tenant)
    if parts.scheme == "kms":
        return _kms(url, parts, query, tenant)
    raise InvalidUrl(f"{url!r} is neither a pkcs11:// nor a kms:// address", _FORMS)


def _with_credentials() -> InvalidUrl:
    return InvalidUrl(
        "a key store's address holds a PIN or credentials, which it must not",
        "Take them out of the URL and set KRYONIX_PIN_FILE, or KRYONIX_KMS_ACCESS_KEY_ID and"
        " KRYONIX_KMS_SECRET_ACCESS_KEY.",
    )


def _hsm(url: str, parts: SplitResult, query: dict[str, str], tenant: TenantId) -> HsmLocation:
    _refuse_unknown(url, query, {"token", "label"})
    module = unquote(parts.path, errors="surrogateescape")
    if parts.netloc or not module.startswith("/") or "\0" in module:
        raise InvalidUrl(f"{url!r} has no absolute path of a PKCS#11 module", _FORMS)
    token = query.get("token", "")
    if not token or len(token.encode()) > _MOST_TOKEN or not token.isprintable():
        raise InvalidUrl(f"{url!r} names no token after 'token='", _FORMS)
    label = query.get("label", f"kryonix-{tenant}")
    if not _LABEL.fullmatch(label) or len(label) > _MOST_LABEL:
        raise InvalidUrl(
            f"{url!r} has a label that is not made of A-Z, a-z, 0-9, '.', '_', '-'", _FORMS
        )
    return HsmLocation(os.path.normpath(module), token, label)


def _kms(url: str, parts: SplitResult, query: dict[str, str], tenant: TenantId) -> KmsLocation:
    _refuse_unknown(url, query, {"region", "endpoint"})
    alias = (parts.netloc + parts.path).rstrip("/") or f"kryonix-{tenant}"
    if not _ALIAS.fullmatch(alias) or alias.startswith("aws/") or len(alias) > _MOST_ALIAS:
        raise InvalidUrl(f"{url!r} names no alias of a key", _FORMS)
    region = query.get("region", "")
    if not _REGION.fullmatch(region):
        raise InvalidUrl(f"{url!r} names no region after 'region='", _FORMS)
    endpoint = query.get("endpoint")
    if endpoint is not None:
        there = urlsplit(endpoint)
        if there.scheme not in ("http", "https") or not there.hostname or there.query:
            raise InvalidUrl(f"{url!r} has no http:// or https:// address after 'endpoint='")
        endpoint = endpoint.rstrip("/")
    return KmsLocation(alias, region, endpoint)


def _refuse_unknown(url: str, query: dict[str, str], known: set[str]) -> None:
    unknown = sorted(set(query) - known)
    if unknown:
        raise InvalidUrl(f"{url!r} has an unknown setting {unknown[0]!r}", _FORMS)
