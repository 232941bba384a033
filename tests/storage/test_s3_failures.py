from __future__ import annotations

import pytest

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
from kryonix_backup.storage.s3_failures import Refusal


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", ObjectMissing),
        (404, "NoSuchBucket", ObjectMissing),
        (404, "", ObjectMissing),
        (404, "404", ObjectMissing),
        (412, "PreconditionFailed", ObjectExists),
        (412, "", ObjectExists),
        (0, "PreconditionFailed", ObjectExists),
        (409, "", ObjectExists),
        (409, "ConditionalRequestConflict", StoreUnavailable),
        (409, "OperationAborted", StoreUnavailable),
        (403, "AccessDenied", StoreDenied),
        (403, "SignatureDoesNotMatch", StoreDenied),
        (403, "InvalidAccessKeyId", StoreDenied),
        (403, "", StoreDenied),
        (401, "", StoreDenied),
        (400, "ExpiredToken", StoreDenied),
        (403, "RequestTimeTooSkewed", StoreDenied),
        (503, "SlowDown", StoreThrottled),
        (429, "", StoreThrottled),
        (400, "RequestLimitExceeded", StoreThrottled),
        (503, "ServiceUnavailable", StoreUnavailable),
        (503, "", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (0, "InternalError", StoreUnavailable),
        (502, "", StoreUnavailable),
        (599, "Whatever", StoreUnavailable),
        (400, "RequestTimeout", StoreUnavailable),
        (400, "BadDigest", StoreUnavailable),
        (0, "", StoreUnavailable),
        (507, "", StoreFull),
        (403, "QuotaExceeded", StoreFull),
        (507, "XMinioStorageFull", StoreFull),
        (501, "NotImplemented", StoreUnsupported),
        (501, "", StoreUnsupported),
        (400, "InvalidRequest", StoreError),
        (301, "PermanentRedirect", StoreError),
        (407, "", StoreDenied),
        (0, "UntrustedCertificate", StoreUntrusted),
        (0, "ProxyAuthenticationRequired", StoreDenied),
    ],
)
def test_every_refusal_has_a_meaning(status: int, code: str, kind: type[KryonixError]) -> None:
    error = Refusal(status, code).error("s3://acme at http://127.0.0.1", "object packs/a")

    assert type(error) is kind
    assert "s3://acme" in str(error)
    assert ("packs/a" in str(error)) or ("bucket does not exist" in str(error))


def test_a_missing_bucket_is_not_a_missing_object() -> None:
    error = Refusal(404, "NoSuchBucket").error("s3://acme", "object a")

    assert str(error) == "s3://acme: the bucket does not exist"
    assert "tenant add" in error.hint


def test_a_wrong_clock_is_named_as_the_cause() -> None:
    assert "clock" in Refusal(403, "RequestTimeTooSkewed").error("s3://acme", "object a").hint


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (
            "Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchKey</Code>",
            Refusal(404, "NoSuchKey"),
        ),
        ("Server returned non-2xx status code: 403 Forbidden: \n", Refusal(403, "")),
        ("HTTP error: error sending request", Refusal(0, "")),
        ("<Code>one two</Code>", Refusal(0, "")),
    ],
)
def test_a_refusal_is_found_in_the_vendors_text(text: str, refusal: Refusal) -> None:
    assert Refusal.in_text(text) == refusal
