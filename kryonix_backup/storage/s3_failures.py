"""What an S3 server's refusal means to us, whichever vendor's client received it."""

from __future__ import annotations

import re
from typing import NamedTuple

from kryonix_backup.errors import (
    KryonixError,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreThrottled,
    StoreUnavailable,
    StoreUnsupported,
    StoreUntrusted,
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")

_DISTRUST = re.compile(
    r"InvalidCertificate\(\s*(\w+)|certificate verify failed: ([a-zA-Z -]+)"
    r"|(hostname '[\w.:-]+' doesn't match)",
    re.ASCII,
)
_NO_LOGIN = re.compile(r"connection failed: 40[17]\b|proxy ?auth", re.I)
_NO_TUNNEL = re.compile(r"connection failed: \d|TunnelUnsuccessful")
# Of our own, for what happens before a server has said anything.
_UNTRUSTED, _PROXY = "UntrustedCertificate", "ProxyAuthenticationRequired"
_LOGIN_REFUSED = "the proxy refuses this login, or wants one"

# Codes come before statuses: servers agree on them more than on the status beside them.
_CODES: dict[str, type[KryonixError]] = {
    "NoSuchKey": ObjectMissing,
    "NoSuchBucket": ObjectMissing,
    "NoSuchEntity": ObjectMissing,
    "NoSuchBucketPolicy": ObjectMissing,
    "NoSuchUpload": StoreUnavailable,
    "PreconditionFailed": ObjectExists,
    # Another writer was at work on the name: whether the object exists shows the next attempt.
    "ConditionalRequestConflict": StoreUnavailable,
    "OperationAborted": StoreUnavailable,
    "BucketAlreadyExists": StoreDenied,
    "AccessDenied": StoreDenied,
    "InvalidAccessKeyId": StoreDenied,
    "SignatureDoesNotMatch": StoreDenied,
    "RequestTimeTooSkewed": StoreDenied,
    "ExpiredToken": StoreDenied,
    "InvalidToken": StoreDenied,
    "SlowDown": StoreThrottled,
    "Throttling": StoreThrottled,
    "ThrottlingException": StoreThrottled,
    "RequestLimitExceeded": StoreThrottled,
    "TooManyRequests": StoreThrottled,
    "ServiceUnavailable": StoreUnavailable,
    "InternalError": StoreUnavailable,
    "RequestTimeout": StoreUnavailable,
    "IncompleteBody": StoreUnavailable,
    # What arrived is not what was sent.
    "BadDigest": StoreUnavailable,
    "XAmzContentSHA256Mismatch": StoreUnavailable,
    "XAmzContentChecksumMismatch": StoreUnavailable,
    "QuotaExceeded": StoreFull,
    "QuotaExceededException": StoreFull,
    "XMinioStorageFull": StoreFull,
    "XMinioAdminBucketQuotaExceeded": StoreFull,
    "InsufficientStorage": StoreFull,
    "StorageFull": StoreFull,
    "NotImplemented": StoreUnsupported,
    _UNTRUSTED: StoreUntrusted,
    _PROXY: StoreDenied,
}
_STATUSES: dict[int, type[KryonixError]] = {
    401: StoreDenied,
    403: StoreDenied,
    404: ObjectMissing,
    407: StoreDenied,
    409: ObjectExists,
    412: ObjectExists,
    429: StoreThrottled,
    501: StoreUnsupported,
    507: StoreFull,
}
_NO_BUCKET_HINT = (
    "Check the region's address; 'kryonix tenant add' makes the bucket of a new tenant."
)
_HINTS = {
    "RequestTimeTooSkewed": (
        "Set this machine's clock: S3 refuses requests that are more than minutes off."
    ),
    _PROXY: "Set KRYONIX_{REGION}_PROXY_USER and KRYONIX_{REGION}_PROXY_PASSWORD_FILE.",
}


class Refusal(NamedTuple):
    """
    A status and an error code, as far as the server gave them (else 0 and an empty text).

    ``why`` is for what failed before it could give any.
    """

    status: int
    code: str
    why: str = ""

    @classmethod
    def in_text(cls, text: str) -> Refusal:
        """The refusal that the text of a client's error tells of."""
        status, code = _STATUS.search(text), _CODE.search(text)
        if status or code:
            return cls(int(status[1]) if status else 0, code[1] if code else "")
        if distrust := _DISTRUST.search(text):
            why = next(filter(None, distrust.groups())).strip()
            return cls(0, _UNTRUSTED, f"the server's certificate is not believed: {why}")
        if _NO_LOGIN.search(text):
            return cls(0, _PROXY, _LOGIN_REFUSED)
        return cls(0, "", "the proxy leads to no server" if _NO_TUNNEL.search(text) else "")

    @property
    def is_missing_bucket(self) -> bool:
        """Whether the whole bucket is missing, as far as the server says so."""
        return self.code == "NoSuchBucket"

    @property
    def is_past_end(self) -> bool:
        """Whether a range begins after the object's last byte."""
        return self.status == 416 or self.code == "InvalidRange"

    def error(self, address: str, what: str) -> KryonixError:
        """Our error for it; no answer at all counts as passing, like every 5xx."""
        status, code, why = self if self.status != 407 else (407, _PROXY, _LOGIN_REFUSED)
        kind = _CODES.get(code) or _STATUSES.get(status)
        if kind is None:
            kind = StoreUnavailable if status >= 500 or not status else StoreError
        said = " ".join(filter(None, [str(status or ""), code]))
        told = why or (f"the server says {said}" if said else "no answer from the server")
        if self.is_missing_bucket:
            return ObjectMissing(f"{address}: the bucket does not exist", _NO_BUCKET_HINT)
        if kind is ObjectMissing:
            no_bucket = _NO_BUCKET_HINT if what == "the bucket" else None
            return ObjectMissing(f"{address}: {what} is missing", no_bucket)
        if kind is ObjectExists:
            return ObjectExists(f"{address}: {what} exists already")
        return kind(f"{address}: {what}: {told}", _HINTS.get(code))
