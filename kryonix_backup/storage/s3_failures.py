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
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")

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
}
_STATUSES: dict[int, type[KryonixError]] = {
    401: StoreDenied,
    403: StoreDenied,
    404: ObjectMissing,
    409: ObjectExists,
    412: ObjectExists,
    429: StoreThrottled,
    501: StoreUnsupported,
    507: StoreFull,
}
_NO_BUCKET_HINT = (
    "Check the region's address; 'kryonix tenant add' makes the bucket of a new tenant."
)
_CLOCK_HINT = "Set this machine's clock: S3 refuses requests that are more than minutes off."


class Refusal(NamedTuple):
    """A status and an error code, as far as the server gave them (else 0 and an empty text)."""

    status: int
    code: str

    @classmethod
    def in_text(cls, text: str) -> Refusal:
        """The refusal that an obstore error's text tells of."""
        status, code = _STATUS.search(text), _CODE.search(text)
        return cls(int(status[1]) if status else 0, code[1] if code else "")

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
        status, code = self
        kind = _CODES.get(code) or _STATUSES.get(status)
        if kind is None:
            kind = StoreUnavailable if status >= 500 or not status else StoreError
        said = " ".join(filter(None, [str(status or ""), code])) or "no answer"
        if self.is_missing_bucket:
            return ObjectMissing(f"{address}: the bucket does not exist", _NO_BUCKET_HINT)
        if kind is ObjectMissing:
            return ObjectMissing(f"{address}: {what} is missing")
        if kind is ObjectExists:
            return ObjectExists(f"{address}: {what} exists already")
        hint = _CLOCK_HINT if code == "RequestTimeTooSkewed" else None
        return kind(f"{address}: {what}: the server says {said}", hint)
