from __future__ import annotations

import pytest

from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.dumping.reading import BytesReader, PiecesReader, environment
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.source import Reader

ADDRESS = Address.parse("postgresql://postgres@127.0.0.1/acme")
ENTRY = Entry(b"data/crm.t/00000", EntryKind.FILE, 0, meta={"columns": ["a"]})


def _read(reader: Reader, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    read = bytearray()
    while count := reader.readinto(buffer):
        read += buffer[:count]
    return bytes(read)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_pieces_are_read_in_any_portions_and_their_rows_counted(size: int) -> None:
    reader = PiecesReader(ENTRY, iter([b"1\n2\n", b"", b"3\n"]), ADDRESS, count_rows=True)

    assert _read(reader, size) == b"1\n2\n3\n"
    assert reader.close().meta == {"columns": ["a"], "rows": 3}


@pytest.mark.parametrize("size", [1, 3, 100])
def test_bytes_are_read_in_any_portions(size: int) -> None:
    reader = BytesReader(ENTRY, b"content")

    assert _read(reader, size) == b"content"
    assert reader.close() is ENTRY


def test_programs_get_the_way_to_the_passfile_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/etc/kryonix/pgpass")
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "secret")

    assert environment()["PGPASSFILE"] == "/etc/kryonix/pgpass"
    assert "KRYONIX_PASSPHRASE" not in environment()
