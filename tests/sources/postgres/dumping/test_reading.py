from __future__ import annotations

from pathlib import Path

import pytest
from psycopg import sql

from kryonix_backup.errors import SourceUnavailable
from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.dumping.reading import (
    BytesReader,
    CopyProgram,
    CopyReader,
    PiecesReader,
    environment,
)
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.exported import exported
from kryonix_backup.sources.postgres.server.programs import programs_for
from kryonix_backup.sources.source import Reader
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

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


ODD = 'a\n:USER :"x" \\set "b" $1 %s é;'


@pytest.mark.service
@pytest.mark.parametrize("rows", [0, 1, 20_000])
def test_psql_gives_rows_and_the_server_says_how_many(postgres: PostgresServer, rows: int) -> None:
    address = Address.parse(postgres.url(new_database(postgres)))
    table = sql.Identifier("public", ODD)
    query = sql.SQL("copy {} to stdout").format(table)
    with exported(address) as (connection, _), postgres.connect(address.database) as writer:
        writer.execute(sql.SQL("create table {} (a int, b text)").format(table))
        made = "insert into {} select g, E'x\\\\y\\n' from generate_series(1, {}) g"
        writer.execute(sql.SQL(made).format(table, rows))
        text = query.as_string(connection)
    with exported(address) as (_, snapshot):
        programs = programs_for(postgres.major)
        program = CopyProgram(programs, address, snapshot.name, text, "UTF8")
        reader = CopyReader(ENTRY, program)
        content = _read(reader, 1000)
        entry = reader.close()

    assert content == b"".join(b"%d\tx\\\\y\\n\n" % (at + 1) for at in range(rows))
    assert entry.meta == {"columns": ["a"], "rows": rows}


@pytest.mark.service
def test_a_query_that_fails_is_told_as_the_server_said_it(postgres: PostgresServer) -> None:
    address = Address.parse(postgres.url(new_database(postgres)))
    with exported(address) as (_, snapshot):
        program = CopyProgram(
            programs_for(postgres.major), address, snapshot.name, "copy nothing to stdout", "UTF8"
        )
        reader = CopyReader(ENTRY, program)
        assert _read(reader, 1000) == b""
        with pytest.raises(SourceUnavailable, match=r'crm\.t/00000: psql .* "nothing" does not'):
            reader.close()


def test_rows_that_nobody_counted_are_no_backup(tmp_path: Path) -> None:
    psql = tmp_path / "psql"
    psql.write_text("#!/bin/sh\nprintf '1\\n'\n")
    psql.chmod(0o755)
    reader = CopyReader(ENTRY, CopyProgram(tmp_path, ADDRESS, "1-1", "copy t to stdout", "UTF8"))

    assert _read(reader, 1000) == b"1\n"
    with pytest.raises(SourceUnavailable, match="without saying how many rows"):
        reader.close()


def test_programs_get_the_way_to_the_passfile_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/etc/kryonix/pgpass")
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "secret")

    assert environment()["PGPASSFILE"] == "/etc/kryonix/pgpass"
    assert "KRYONIX_PASSPHRASE" not in environment()
