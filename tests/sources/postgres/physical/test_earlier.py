from __future__ import annotations

import hashlib
import json
from contextlib import closing
from typing import Any

import pytest

from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.physical import earlier as earlier_module
from kryonix_backup.sources.postgres.physical.earlier import Earlier
from kryonix_backup.sources.postgres.physical.paths import backup_name

META = {"system": "7", "timeline": 1, "start": 0x2000028, "end": 0x1_0000_0100}


def _backup(number: int, *files: tuple[bytes, int]) -> list[Entry]:
    name = backup_name(number)
    meta: dict[str, Any] = {**META, "number": number, "entries": len(files) + 2}
    return [
        Entry(name, EntryKind.DIRECTORY, 0, meta={"mode": 0o700}),
        Entry(name + b"/backup_manifest", EntryKind.FILE, 9, b"r" * 36, meta=meta),
        *(Entry(name + b"/" + path, EntryKind.FILE, size) for path, size in files),
    ]


def test_the_next_backup_goes_on_from_one_that_keeps_them_few() -> None:
    full, first, second = _backup(0, (b"base/1/2", 8192)), _backup(1), _backup(2)

    for entries, kept, number in (
        (full, full, 1),
        ([*full, *first], full, 2),
        ([*full, *second], [*full, *second], 3),
        ([*full, *second, *_backup(3)], full, 4),
    ):
        with closing(Earlier(iter(entries))) as earlier:
            assert not earlier.unusable
            assert list(earlier.entries()) == kept
            assert earlier.next == number
            assert earlier.meta["number"] == kept[-1].path.startswith(b"incr") * 2


def test_the_server_is_told_of_that_backup_alone() -> None:
    entries = [
        *_backup(0, (b"base/1/2", 8192)),
        *_backup(2, (b"base/1/\xff", 5), (b"base/1/INCREMENTAL.2", 12),
                 (b"pg_wal/000000010000000000000002", 1 << 24)),
    ]  # fmt: skip

    with closing(Earlier(iter(entries))) as earlier:
        raw = b"".join(earlier.manifest())
    manifest = json.loads(raw)

    assert manifest["Files"] == [
        {"Encoded-Path": "626173652f312fff", "Size": 5},
        {"Path": "base/1/INCREMENTAL.2", "Size": 12},
    ]
    assert manifest["System-Identifier"] == 7
    assert manifest["WAL-Ranges"] == [{"Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "1/100"}]
    body = raw[: raw.rindex(b'"Manifest-Checksum"')]
    assert manifest["Manifest-Checksum"] == hashlib.sha256(body).hexdigest()


def test_what_lost_a_file_cannot_be_gone_on_from() -> None:
    entries = _backup(0, (b"base/1/2", 8192))

    for some in (entries[:-1], []):
        with closing(Earlier(iter(some))) as earlier:
            assert "lost a part" in earlier.unusable


def test_there_is_an_end_to_the_incremental_backups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier_module, "MOST_INCREMENTALS", 2)

    with closing(Earlier(iter([*_backup(0), *_backup(2)]))) as earlier:
        assert "2 incremental backups" in earlier.unusable
