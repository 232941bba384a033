from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.crypto.stores.location import HsmLocation, KmsLocation, parse_key_store
from kryonix_backup.errors import InvalidUrl
from kryonix_backup.model import TenantId

ACME = TenantId("acme")
MODULE = "/usr/lib/softhsm/libsofthsm2.so"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"pkcs11://{MODULE}?token=kryonix", HsmLocation(MODULE, "kryonix", "kryonix-acme")),
        (f"pkcs11://{MODULE}?token=my%20hsm&label=acme.master",
         HsmLocation(MODULE, "my hsm", "acme.master")),
        ("pkcs11:///hsm//x/./p11.so?token=a", HsmLocation("/hsm/x/p11.so", "a", "kryonix-acme")),
        ("kms://?region=sa-east-1", KmsLocation("kryonix-acme", "sa-east-1", None)),
        ("kms://Backup/acme?region=us-east-1", KmsLocation("Backup/acme", "us-east-1", None)),
        ("kms://a_b-c/?region=us-east-1&endpoint=http://127.0.0.1:5000/",
         KmsLocation("a_b-c", "us-east-1", "http://127.0.0.1:5000")),
    ],
)  # fmt: skip
def test_a_url_names_a_place(url: str, expected: HsmLocation | KmsLocation) -> None:
    location = parse_key_store(url, ACME)

    assert location == expected
    assert (
        "acme" in location.address or "a_b-c" in location.address or "token a" in location.address
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "acme",
        "file:///srv",
        "pkcs11://",
        "pkcs11://host/usr/lib/p11.so?token=a",
        f"pkcs11://{MODULE}",
        f"pkcs11://{MODULE}?token=",
        f"pkcs11://{MODULE}?token={'a' * 33}",
        f"pkcs11://{MODULE}?token=a%00",
        f"pkcs11://{MODULE}?token=a&token=b",
        f"pkcs11://{MODULE}?token=a&label=",
        f"pkcs11://{MODULE}?token=a&label=a/v1",
        f"pkcs11://{MODULE}?token=a&label={'a' * 65}",
        f"pkcs11://{MODULE}?token=a&slot=1",
        f"pkcs11://{MODULE}?token=a#x",
        "pkcs11:///usr/lib/%00?token=a",
        "pkcs11:///usr/lib/p11.so\n?token=a",
        "kms://acme",
        "kms://acme?region=",
        "kms://acme?region=a/b",
        "kms://a b?region=us-east-1",
        "kms://aws/s3?region=us-east-1",
        "kms://a//b?region=us-east-1",
        "kms://acme:9000?region=us-east-1",
        "kms://acme?region=us-east-1&endpoint=127.0.0.1",
        "kms://acme?region=us-east-1&endpoint=ftp://127.0.0.1",
        "kms://acme?region=us-east-1&endpoint=http://127.0.0.1:x",
        "kms://acme?region=us-east-1&what=ever",
    ],
)
def test_what_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl):
        parse_key_store(url, ACME)


@pytest.mark.parametrize(
    "url",
    [
        f"pkcs11://{MODULE}?token=a&pin=hunter2",
        f"pkcs11://{MODULE}?token=a&pin-value=hunter2",
        f"pkcs11://{MODULE}?token=a&PIN=hunter2",
        f"pkcs11://user:hunter2@{MODULE}?token=a",
        "kms://KEY:hunter2@acme?region=us-east-1",
        "kms://acme?region=us-east-1&secret_access_key=hunter2",
        "kms://acme?region=us-east-1&session_token=hunter2",
        "kms://acme?region=us-east-1&endpoint=http://KEY:hunter2@127.0.0.1",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        parse_key_store(url, ACME)

    assert "hunter2" not in f"{caught.value} {caught.value!r} {caught.value.hint}"
    assert "KRYONIX_PIN_FILE" in caught.value.hint


@given(
    st.text()
    | st.text(alphabet="ab/.?&=token%[]@#1").map(f"pkcs11://{MODULE}?token=a".__add__)
    | st.text(alphabet="ab/.?&=@%[]-_:").map("kms://acme?region=us-east-1".__add__)
)
def test_any_text_is_a_place_or_an_invalid_url(url: str) -> None:
    try:
        location = parse_key_store(url, ACME)
    except InvalidUrl:
        return

    assert "@" not in location.address.replace("@", "", 0) or isinstance(location, HsmLocation)
    if isinstance(location, HsmLocation):
        assert location.module.startswith("/")
        assert "/v" not in location.label
