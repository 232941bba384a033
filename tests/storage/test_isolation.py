"""What keeps a region apart can be told without a secret."""

from __future__ import annotations

from kryonix_backup.storage.isolation import Isolation


def test_an_isolation_is_plain() -> None:
    done = Isolation("primary", "bucket", "s3://acme", "kryonix.acme.1", ("key",), ("tried",))

    assert done.to_plain() == {
        "region": "primary",
        "kind": "bucket",
        "address": "s3://acme",
        "owner": "kryonix.acme.1",
        "made": ["key"],
        "proved": ["tried"],
        "remarks": [],
    }
