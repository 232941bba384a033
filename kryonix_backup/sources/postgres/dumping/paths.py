"""Where the parts of a database stand among the entries of a snapshot."""

from __future__ import annotations

from urllib.parse import quote_from_bytes, unquote_to_bytes

SCHEMA_DUMP = b"schema.dump"
DATABASE = b"database.json"
ROLES = b"roles.json"
SEQUENCES = b"sequences.json"
NOW = b"now.json"
"""What of the database and its roles is of an incremental backup, not of the full one before."""
DATA = b"data/"
LARGE_OBJECTS = b"large-objects/"

_PLAIN = " !#$&'()*+,:;<=>?@[]^`{|}~"  # what a name may hold as it is; `/`, `.` and `%` may not


def data_path(schema: str, table: str, number: int) -> bytes:
    """The path of one range of a table's rows, so that ``crm.*`` finds all tables of a schema."""
    return DATA + f"{_quoted(schema)}.{_quoted(table)}/{number:05d}".encode()


def table_of(path: bytes) -> tuple[str, str]:
    """The schema and table that `data_path` was made of."""
    schema, _, table = path.removeprefix(DATA).split(b"/")[0].partition(b".")
    return unquote_to_bytes(schema).decode(), unquote_to_bytes(table).decode()


def large_object_path(oid: int) -> bytes:
    """The path of a large object."""
    return LARGE_OBJECTS + b"%010d" % oid


def _quoted(name: str) -> str:
    return quote_from_bytes(name.encode(), safe=_PLAIN).replace(".", "%2E")
