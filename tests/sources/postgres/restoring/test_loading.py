from __future__ import annotations

import pytest

from kryonix_backup.errors import SourceError, ValidationFailed
from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.dumping import paths
from kryonix_backup.sources.postgres.restoring.loading import load_rows
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.testing.postgres import PostgresServer
from kryonix_backup.testing.sources import GivenContent
from tests.services.postgres import new_database

pytestmark = pytest.mark.service


def _rows(table: str, number: int, rows: int) -> Entry:
    meta = {"columns": ["a"], "rows": rows}
    return Entry(paths.data_path("public", table, number), EntryKind.FILE, rows, meta=meta)


def test_ranges_of_a_table_come_together_and_are_frozen(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("create table t (a int)")
        items = [(_rows("t", 0, 2), [b"1\n", b"2\n"]), (_rows("t", 1, 1), [b"3\n"])]

        loaded = load_rows(
            GivenContent(items), [entry for entry, _ in items],
            Address.parse(postgres.url(database)), 1,
        )  # fmt: skip

        assert (loaded.entries, loaded.bytes) == (2, 6)
        assert connection.execute("select array_agg(a order by a) from t").fetchone() == (
            [1, 2, 3],
        )
        assert connection.execute("select relfrozenxid <> '0' from pg_class limit 1").fetchone()


def test_rows_that_do_not_add_up_stop_the_load(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("create table t (a int)")
    address = Address.parse(postgres.url(database))

    short, wrong = _rows("t", 0, 3), _rows("t", 0, 1)
    with pytest.raises(ValidationFailed, match=r"public\.t took 2 rows of the 3"):
        load_rows(GivenContent([(short, [b"1\n2\n"])]), [short], address, 1)
    with pytest.raises(SourceError, match="invalid input syntax"):
        load_rows(GivenContent([(wrong, [b"one\n"])]), [wrong], address, 1)

    with postgres.connect(database) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (0,)
