from __future__ import annotations

import pytest

from kryonix_backup.addresses import holds_secret


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@h/db",
        "postgresql://u:hunt/er2@h/db",
        "postgresql://u:hunt?er2@h/db",
        "postgresql://u:hunt#er2@h/db",
        "postgresql://:hunter2@h/db",
        "postgresql://u@h/db?password=hunter2",
        "postgresql://u@h/db?sslmode=require&sslpassword=hunter2",
        "postgresql+physical://u:hunter2@h/",
        "s3://KEY:se/cret@bucket",
        "s3://bucket?endpoint=http://key:se/cret@host",
        "s3://bucket?endpoint=http%3A%2F%2Fkey%3Ase%2Fcret%40host",
        "s3://bucket?AWS_SECRET=hunter2",
    ],
)
def test_a_password_is_seen_wherever_it_ends(url: str) -> None:
    assert holds_secret(url)


@pytest.mark.parametrize(
    "url",
    [
        "files:///srv/a:b@c",
        "files:///srv/password",
        "file:///backup/acme",
        "pgdata:///var/lib/a:b@c?owner=postgres",
        "postgresql://u@h:5432/db@home",
        "postgresql://u@[::1]:5432/db?sslmode=verify-full&sslrootcert=/etc/ssl/a.pem",
        "s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1",
        "pkcs11:///usr/lib/p11.so?token=a",
        "",
    ],
)
def test_an_address_without_one_is_let_through(url: str) -> None:
    assert not holds_secret(url)
