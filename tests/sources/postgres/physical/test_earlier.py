from __future__ import annotations

import hashlib
import json
from contextlib import closing
from typing import Any

from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.physical.earlier import Earlier

META = {"system": "7", "timeline": 1, "start": 0x2000028, "end": 0x1_0000_0100}


def _backup(name: bytes, *files: tuple[bytes, int]) -> list[Entry]:
    meta: dict[str, Any] = {**META, "entries": len(files) + 2}
    return [
        Entry(name, EntryKind.DIRECTORY, 0, meta={"mode": 0o700}),
        Entry(name + b"/backup_manifest", EntryKind.FILE, 9, b"r" * 36, meta=meta),
        *(Entry(name + b"/" + path, EntryKind.FILE, size) for path, size in files),
    ]


def test_what_was_there_comes_back_and_the_next_name_follows() -> None:
    entries = [*_backup(b"full", (b"base/1/2", 8192)), *_backup(b"incremental-001")]

    with closing(Earlier(iter(entries))) as earlier:
        assert not earlier.unusable
        assert list(earlier.entries()) == entries
        assert earlier.next == b"incremental-002"
        assert earlier.meta["entries"] == 2


def test_the_server_is_told_of_the_newest_backup_alone() -> None:
    entries = [
        *_backup(b"full", (b"base/1/2", 8192)),
        *_backup(b"incremental-001", (b"base/1/\xff", 5), (b"base/1/INCREMENTAL.2", 12),
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
    entries = _backup(b"full", (b"base/1/2", 8192))

    with closing(Earlier(iter(entries[:-1]))) as earlier:
        assert "lost a part" in earlier.unusable


def test_there_is_an_end_to_the_incremental_backups_in_a_row() -> None:
    names = [b"full", *(b"incremental-%03d" % number for number in range(1, 1000))]

    with closing(Earlier(entry for name in names for entry in _backup(name))) as earlier:
        assert "999" in earlier.unusable
