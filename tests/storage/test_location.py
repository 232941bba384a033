from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.errors import InvalidUrl
from kryonix_backup.storage.location import Bucket, Directory, parse_location

AMAZON = "https://s3.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///srv/backup", "/srv/backup"),
        ("file:///srv//backup/./x/", "/srv/backup/x"),
        ("file://localhost/srv/backup", "/srv/backup"),
        ("file:///srv/with%20space", "/srv/with space"),
    ],
)
def test_a_file_url_names_a_directory(url: str, path: str) -> None:
    location = parse_location(url)

    assert location == Directory(Path(path))
    assert location.address == f"file://{path}"


def test_an_s3_url_alone_means_amazon() -> None:
    bucket = parse_location("s3://tenant-acme-backup")

    assert bucket == Bucket("tenant-acme-backup", "", AMAZON, "us-east-1", False, 120.0)
    assert isinstance(bucket, Bucket)
    assert bucket.host_url == "https://tenant-acme-backup.s3.us-east-1.amazonaws.com"


def test_an_s3_url_says_everything_about_another_server() -> None:
    bucket = parse_location(
        "s3://acme/backups/v1/?endpoint=http://127.0.0.1:9000/&region=eu-west-1&timeout=2.5"
    )

    assert bucket == Bucket("acme", "backups/v1", "http://127.0.0.1:9000", "eu-west-1", True, 2.5)
    assert isinstance(bucket, Bucket)
    assert bucket.host_url == "http://127.0.0.1:9000"
    assert bucket.address == "s3://acme/backups/v1 at http://127.0.0.1:9000"


def test_the_region_chooses_amazons_endpoint() -> None:
    bucket = parse_location("s3://acme?region=sa-east-1&path_style=true")

    assert isinstance(bucket, Bucket)
    assert (bucket.endpoint, bucket.path_style) == ("https://s3.sa-east-1.amazonaws.com", True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "acme",
        "http://127.0.0.1/acme",
        "file://host/srv",
        "file://srv",
        "file:///",
        "file:///..",
        "file:///srv?x=1",
        "file:///srv#x",
        "file:///srv%00",
        "s3://",
        "s3:///acme",
        "s3://A_B",
        "s3://ab",
        "s3://a..b",
        "s3://acme:9000",
        "s3://acme/../other",
        "s3://acme/a//b",
        "s3://acme/a b",
        "s3://acme?endpoint=127.0.0.1:9000",
        "s3://acme?endpoint=ftp://127.0.0.1",
        "s3://acme?endpoint=http://127.0.0.1:x",
        "s3://acme?endpoint=http://[::1",
        "s3://acme?region=",
        "s3://acme?region=a/b",
        "s3://acme?path_style=yes",
        "s3://acme?timeout=soon",
        "s3://acme?timeout=0",
        "s3://acme?timeout=nan",
        "s3://acme?what=ever",
        "s3://acme?endpoint",
    ],
)
def test_what_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl):
        parse_location(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:hunter2@acme",
        "s3://hunter2@acme?endpoint=http://127.0.0.1:9000",
        "s3://acme?endpoint=http://KEY:hunter2@127.0.0.1:9000",
        "s3://acme?secret_access_key=hunter2",
        "s3://KEY:hunter2/with+a+slash@acme",
        "s3://acme?endpoint=http://KEY:hunter2/with+a+slash@host",
        "s3://acme?AWS_SECRET=hunter2",
        "s3://acme?access-key=hunter2",
        "s3://acme?X-Amz-Signature=hunter2",
        "file://user:hunter2@/srv",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        parse_location(url)

    assert "hunter2" not in str(caught.value) + repr(caught.value) + caught.value.hint
    assert "KRYONIX_{REGION}_SECRET_ACCESS_KEY" in caught.value.hint


@given(
    st.text()
    | st.text(alphabet="abs3:/?&=@.%[]-").map("s3://acme".__add__)
    | st.text(alphabet="ab/.%0@?#").map("file://".__add__)
)
def test_any_text_is_a_place_or_an_invalid_url(url: str) -> None:
    try:
        location = parse_location(url)
    except InvalidUrl:
        return

    if isinstance(location, Directory):
        assert location.path.is_absolute()
        assert ".." not in location.path.parts
    else:
        assert not location.prefix.startswith("/")
        assert "@" not in location.address.replace(" at ", "")
