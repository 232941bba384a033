"""Names of objects, and the one object that is read before anything is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kryonix_backup.errors import Damaged, FormatUnsupported, KryonixError
from kryonix_backup.model import PackId, RepositoryId, RestoreId, SnapshotId
from kryonix_backup.repository import layout
from kryonix_backup.repository.layout import Format
from kryonix_backup.storage.object_name import is_object_name
from kryonix_backup.testing.clock import NOON

STORED = {
    "magic": "kryonix-backup repository",
    "version": 1,
    "repository": "0123456789abcdef0123456789abcdef",
    "created": "2026-11-23T12:00:00+00:00",
    "hash": "blake3",
}
DESCRIBED = Format(RepositoryId("0123456789abcdef" * 2), NOON)


def test_the_format_object_has_its_known_form() -> None:
    assert json.loads(DESCRIBED.to_bytes()) == STORED
    assert Format.from_bytes(json.dumps(STORED).encode()) == DESCRIBED


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"magic": "other"}, Damaged),
        ({"magic": None}, Damaged),
        ({"version": 2}, FormatUnsupported),
        ({"version": None}, FormatUnsupported),
        ({"version": "1"}, FormatUnsupported),
        ({"hash": "hmac-sha-256"}, FormatUnsupported),
        ({"created": "yesterday"}, Damaged),
        ({"created": "2026-11-23T12:00:00"}, Damaged),
        ({"created": 7}, Damaged),
    ],
)
def test_a_changed_format_object_is_refused(
    changes: dict[str, Any], error: type[KryonixError]
) -> None:
    with pytest.raises(error):
        Format.from_bytes(json.dumps(STORED | changes).encode())


@pytest.mark.parametrize("field", sorted(STORED))
def test_a_format_object_that_lacks_a_field_is_damaged(field: str) -> None:
    less = {name: value for name, value in STORED.items() if name != field}

    with pytest.raises(Damaged, match=r"format\.json"):
        Format.from_bytes(json.dumps(less).encode())


@pytest.mark.parametrize(
    "body", [b"", b"{", b"7", b"[]", b'"text"', b"null", b"\xff", b"[" * 100_000, b"{}"]
)
def test_what_is_no_format_object_is_damaged(body: bytes) -> None:
    with pytest.raises(Damaged, match=r"format\.json"):
        Format.from_bytes(body)


def test_every_name_is_one_that_stores_take() -> None:
    names = [
        layout.FORMAT,
        layout.keyring_name(RepositoryId("ab" * 16), 12),
        layout.pack_name(PackId("ab" * 32)),
        layout.snapshot_name(SnapshotId("20261123t120000z-0123456789abcdef")),
        layout.journal_name(RestoreId("20261123t120000z-0123456789abcdef"), 3),
        layout.new_index_name(),
    ]

    assert names[:5] == [
        "format.json",
        "keys/" + "ab" * 16 + "/00000012",
        "packs/ab/" + "ab" * 32,
        "snapshots/20261123t120000z-0123456789abcdef",
        "restores/20261123t120000z-0123456789abcdef/0003",
    ]
    assert all(is_object_name(name) for name in names)


def test_random_names_do_not_repeat() -> None:
    assert len({layout.new_index_name() for _ in range(1000)}) == 1000
    assert len({layout.new_repository_id() for _ in range(1000)}) == 1000
